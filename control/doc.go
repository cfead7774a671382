// Package control is membership and what members tell each other, all inside the tunnel.
//
//	control/ledger  who is a member: genesis, statements, admissions, merged the same way everywhere
//	control/join    how a stranger is let in: Intro, Welcome, join stream
//	control/wire    framing of control streams
//	control/ring    with whom a member of a larger network keeps sessions, and how signals find their way
//	control/shelf   how two members find out what differs
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
// A session is driven from outside, by bytes and time: drive.go does it over a connection with two goroutines, virtual.go
// for simulations of whole networks.
//
// A Hello carries `me` (card and reach), `you` (where we see the other) and a digest; then both sides send only what the
// other lacks, and compare digests from time to time (session.go, sync.go). What is new goes to all partners at once, what
// came from others is offered to them by 8 bytes and sent to whoever asks (spread.go, asks.go, serve.go).
//
// Up to 32 members keep a session with everybody and know everybody's reach. Of more, each keeps those that the ring asks
// for; cards go to all, a reach to partners only, and others ask for it (topology.go, whereis.go). What a node says, asks
// for and sends in a second is bounded then, also when everybody starts at once.
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
// Read first: mesh.go, run.go, draw.go, handshake.go, session.go, drive.go, pulse.go, sync.go, spread.go, topology.go; then
// rendezvous.go, enter.go, hints.go, signal.go and whereis.go.
package control
