// Package control is membership and what members tell each other, all inside the tunnel.
//
//	control/ledger  who is a member: genesis, statements, admissions, merged the same way everywhere
//	control/join    how a stranger is let in: Intro, Welcome, join stream
//	control/wire    framing of control streams
//	control         a member's side of it: sessions, cards and reaches, address book, state folder
//
//	      stream from the tunnel                    datagrams 0xC1–0xC3 from magicsock
//	              │                                             │
//	   accept ─▶ session ─▶ update ─▶ ledger, cards        rendezvous ─▶ join.Answerer
//	              ▲            │                                │
//	              └── push ◀───┤                          provisional peer, let
//	                           └─▶ Run: save, publish ─▶ netmap.Map, events
//
// Mesh.mu guards everything that is known. A session has a reader and a writer goroutine; neither holds mu while it
// reads, writes or waits. Run owns what goes out to the node; it sleeps until the next deadline (rest) or until it is
// woken (poke). What the packet side tells it leaves in the ear, and so never waits for mu. Enter is the way in for
// somebody who is no member yet.
//
// A Hello carries `me` (card and reach), `you` (where we see the other) and a digest; then both sides send only what the
// other lacks, push what is new at once, and compare digests from time to time (session.go, sync.go).
//
// A card offers what its node could do for others (a relay server); it counts once an admin allows it. A reach says where
// the node may be found: endpoints, homes, the kind of its NAT. Datagrams of joining go to places: addresses, or nodes
// that relay servers lead to. Signals, by which two members without a path find one, go from session to session, and so
// does the question where a member is (signal.go, whereis.go; package ring).
//
//	card   0 node  1 sequence  2 name  3 boot id  4 version  5 roles  6 WireGuard key  7 disco key  8 key generation
//	       9 URL of the relay server that it offers, if any
//	reach  0 node  1 sequence  2 endpoints, each address 4 or 16 ‖ port 2  3 host  4 port
//	       5 homes, each 0 URL of a relay server or 1 member  6 kind of NAT  7 whether it relays between members
//
// Both are signed CBOR maps as in package ledger, but keys that a reader does not know are passed on and ignored.
//
// Read first: mesh.go, run.go, draw.go, handshake.go, session.go, sync.go; then rendezvous.go, enter.go, hints.go,
// signal.go and whereis.go.
package control
