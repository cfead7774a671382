// Package wg is the state of the WireGuard protocol: peers, sessions, handshakes and their timers, as a machine without
// I/O and without a clock. Messages and times go in, actions come out. The cryptography of the handshake is in package
// noise.
//
//	         commands, handshake messages, notes, time
//	                           │
//	                           ▼
//	packet path ◀─ Table ── Machine ──▶ []Action: send an initiation, reply, keepalive, established, over
//	     │          Peer       ▲
//	     └──────── Notes ──────┘
//
// Who owns what. Machine is owned by one loop and has no locks. The packet path never calls it: it looks at Peer (what
// to send with) and Table (sessions by index), both read through atomics, and leaves a Note where the machine has to act:
// no session, a session that gets old, a first packet that confirms one, a timer that must run. So a packet costs the
// timers nothing but a comparison, and an idle peer has no timer at all.
//
// A peer's sessions, after the WireGuard paper §6 and the reference implementations:
//
//	initiator: initiation ──▶ pending ── response ──▶ current ── newer one ──▶ previous ── 180 s ──▶ wiped
//	responder: initiation ──▶ next ── first packet under it ──▶ current …
//
// What is done differently within the protocol:
//   - Own initiations, the sessions of theirs, and replaced ones are kept apart, a few each. Two that cross do not
//     end each other: both sides settle on one, and if both complete, on that of the lower public key. A response that
//     takes longer than a retry finds its initiation still there, and packets under way survive several changes.
//   - Initiations made after the one that was answered first may be answered for 5 s more, and the later session counts:
//     other implementations keep only that of the last initiation they saw.
//   - An unanswered initiation is repeated after 0.25, 0.5, 1 and 2 s, then every 5 s until 90 s after the first.
//   - An initiator holds several pre-shared keys and tries each on a response; a responder takes the newest, and the
//     next older one each time that a session was not confirmed. A key changes without cutting anything.
//   - A responder that still sends under a session of 165 s begins a handshake itself.
//
// Read first: machine.go, then peer.go, session.go, handshake.go, timers.go. Sources: Donenfeld, "WireGuard: Next
// Generation Kernel Network Tunnel", §5 and §6.
package wg
