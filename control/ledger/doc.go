// Package ledger decides who belongs to a network. It holds what admins stated and who was admitted, merges both
// with what others hold, and computes from them one State that is the same on every node, offline, in any order of
// arrival. In this release the founder is the only admin.
//
// Everything is a signed CBOR map (package dcbor). Keys are small integers from 0 without a gap, so that unknown ones
// stand behind the known. Times are unix milliseconds, but genesis' creation and an invite's expiry are unix seconds.
//
//	Signed     [body, signature]                      genesis, statement, acceptance
//	Admit      [body, invite's signature, node's signature]
//
//	genesis    0 version  1 name  2 created  3 founder  4 WireGuard key  5 disco key  6 key generation
//	           7 IPv4 prefix  8 its bits  9 DNS suffix  10 recovery key, if any  11 commit to the network key
//	statement  0 author  1 prev  2 seen  3 clock  4 time  5 type  6 body, a byte string that holds a map:
//	  invite   0 public key  1 tags  2 expiry  3 uses  4 kid  5 generation of the network key
//	  revoke   0 "member" | "invite"  1 id  2 accepted heads | honoured admits  3 purge
//	  keep     0 list of [admit id, time of admission]
//	  rename   0 member  1 name
//	  lease    0 member  1 IPv4 address
//	  allow    0 "relay" | "route" | "exit"  1 value  2 member  3 whether its offer counts
//	admit      0 network  1 invite  2 node key  3 WireGuard key  4 disco key  5 key generation
//	acceptance 0 admit  1 acceptor  2 prev, if any  3 ledger heads  4 time
//	proof      list of links [admit, invite, acceptance] or [admit, invite, empty, keep], member first
//	token      "mesh1" + base58check of 0 version  1 network  2 invite  3 seed  4 PSK  5 grants
//	           6 hints, each 0 address  1 node key   7 relay pass
//
// The id of a statement, acceptance or network is the hash of its body under its signing purpose; an admit, which has
// two, is named under that of the node's signature.
//
//	AddStatement ─► parents known? ─no─► pending (bounded, oldest leave) ─► woken by the parent
//	                     └yes─► the graph: clock checked, heads, forks
//	AddAdmit, AddAcceptance ─► pending until invite, heads and acceptor are known ─► the admissions
//	State = facts of the graph (by clock, then hash) + admissions in order (keeps, then by time) + addresses
//
// A Ledger does no I/O, knows no clock and is owned by one loop; State values may go anywhere. Everything handed in is
// kept and handed on byte for byte.
//
// Read first: statement.go, admission.go, then ledger.go and order.go; offer.go.
package ledger
