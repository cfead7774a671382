// Package join is how a stranger is let in: a rendezvous in two datagrams, then a control stream inside a WireGuard
// session that both datagrams' keys made.
//
//	joiner                                   any member
//	Intro 1232, zero cookie      ─────────▶  known id? else silence; by relay: on to the seal
//	                             ◀─────────  Cookie 32: proves the source address, costs one HMAC
//	Intro 1232, with the cookie  ─────────▶  opens under the invite's PSK, node signature, ledger
//	                             ◀─────────  Welcome: keys of the answerer, mesh time, seen address (or a Refusal)
//	── WireGuard handshake, PSK made of both ephemeral keys and the invite's PSK ──
//	JoinHello: admit, invite, card, ML-KEM-768 key ─▶
//	                             ◀─────────  JoinProof: genesis, proof of membership, card
//	JoinConfirm                  ─────────▶  signs the acceptance
//	                             ◀─────────  JoinAccept: acceptance, network keys sealed by ML-KEM
//
//	intro:   0xC1 | version | id 16 | cookie 16 | e_j 32 | AEAD(length 2 | CBOR | zeros)       1232 in all
//	cookie:  0xC2 | version | first 14 bytes of e_j | cookie 16                                  32 in all
//	welcome: 0xC3 | version | e_r 32 | AEAD(CBOR)                                               never longer
//
// Places are addresses, or nodes that relay servers lead to. A relay vouches for its senders, so that no cookie is needed
// there; budgets bound what they may cost instead, and the node that the datagram is of must be the relay's sender.
//
// Members use the same two datagrams, under a key made of K, to be found again by members whose contact packets they
// no longer understand or that do not know them yet.
//
// Codecs and machines without sockets; the time is always a parameter. Answerer and Asker are each owned by one
// goroutine. Read first: intro.go, welcome.go, then answerer.go and asker.go, stream.go.
package join
