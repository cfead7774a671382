// Package magicsock is the socket under WireGuard: it knows peers, not addresses. For each peer it keeps the paths
// that might reach it, finds out by contact packets which of them do, and sends by the best one.
//
//	WireGuard device ── conn.Bind (bind.go) ──┐
//	                                          │ one endpoint per peer, whatever the path
//	  send.go:    endpoint → route snapshot → UDP batch | relay leg | both while in doubt
//	  receive.go: UDP batch → classify ─┬─ 0x01–0x04 000000  WireGuard: to the device
//	                                    ├─ 0xC4 ping, 0xC5 pong: core.go
//	                                    ├─ 0xC1–0xC3 Intro, cookie, Welcome: Config.Rendezvous
//	                                    └─ the rest: dropped and counted
//
// Who owns what. core is the pure part: it takes `now` and an event and appends what to send and what to tell; it
// holds all peers and paths and is guarded by Conn.mu. Conn owns the sockets and the one timer. Packets never wait
// for core: endpoint.route is an atomic snapshot that core publishes.
//
// Contact before handshake: a cold pair exchanges ping and pong first; on that both sides install the WireGuard
// peer (Event Contact) and one of them initiates. See contact.go for that dance and gate.go for the rules that keep
// WireGuard's own timers from ever costing five seconds.
//
// Trust in a path comes from pongs to our own pings. A pong that fails to come while data is sent puts the path in
// doubt: data then goes on it and on the next best, for at most two seconds and a mebibyte, before it moves.
//
// Read first: core.go, path.go, choose.go, contact.go; then conn.go. magicsock/udp has the batched sockets,
// magicsock/disco the wire format.
package magicsock
