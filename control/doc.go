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
// Read first: mesh.go, run.go, draw.go, handshake.go, session.go, sync.go; then rendezvous.go and enter.go.
package control
