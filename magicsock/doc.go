// Package magicsock is the socket under WireGuard: it knows peers, not addresses. For each peer it keeps the paths
// that might reach it, finds out by contact packets which of them do, and sends by the best one.
//
//	data path ── Receive, PeerByKey, Reply ─┐
//	                                        │ one handle per peer, whatever the path
//	  send.go:     handle → route snapshot → UDP batch | relay leg | both while in doubt
//	  initiate.go: a handshake initiation → every path that might work
//	  intake.go:   UDP trains, relay.go → sort ─┬─ 0x01–0x04 000000  WireGuard: to the data path, where they lie
//	                                            ├─ 0xC4 ping, 0xC5 pong: contact.go
//	                                            ├─ 0xC6 signal: call.go, via_signal.go
//	                                            ├─ 0xC8, 0xC9 member relay: via.go, via_serve.go
//	                                            ├─ 0xC1–0xC3 Intro, cookie, Welcome: Config.Rendezvous
//	                                            └─ the rest: dropped and counted
//	  trust.go:    "these were authentic, and came from there" → trust in the path, or a path
//
// The data path authenticates WireGuard's messages, whoever sent them, and answers a member's initiation at once; so
// there is no order between contact and handshake. Both are tried together, and a path that begins to answer is told
// (Event Reachable), as an initiation that left earlier may have been lost on it. Only tests put the wireguard module's
// device on top, by a conn.Bind of their own.
//
// Who owns what. core is the pure part: it takes `now` and an event and appends what to send and what to tell; it
// holds all peers and paths and is guarded by Conn.mu. Conn owns the sockets and the one timer. Packets never wait
// for core: handle.route is an atomic snapshot that core publishes.
//
// A member that nobody contacted is no peer yet: it is looked up in the network map (member.go) and costs its tags. It
// becomes a peer when there is something to remember, and none again when it was not used for ten minutes (forget.go).
// A handle belongs to whoever asked for it and outlives both; without a peer of its own it looks for the one that has
// its key.
//
// A path (way.go) is direct, by a member that relays, or by relay servers; they are preferred in this order at any
// latency, and the last needs no pong to be used. So data goes at once, and moves when something better answers:
//
//	contact.go: pings and pongs ──▶ size.go: does the size of data pass? ──▶ choose.go: the best, with hysteresis
//	search.go:  every candidate again, while the path is not direct ──▶ call.go: and have the other side do the same
//
// Trust in a path comes from pongs to our own pings, and from authenticated packets. A pong that fails to come while
// data is sent and nothing else vouches for the path puts it in doubt: data then goes on it and on the next best, for
// at most two seconds and a mebibyte, before it moves. Packets by another path move data only then: otherwise they
// have that path pinged, and its pong competes. What was not used for two minutes costs no packets, unless it is a home.
//
// What is to be seen of all that is in event.go, with reason.go, rtt.go, meter.go and counters.go.
//
// A peer that nothing direct leads to is reached by way of a member that relays (via.go; via_serve.go is the other side
// of it, magicsock/hop the protocol). Between a hard NAT and one that filters by port, the port is guessed (predict.go,
// magicsock/guess), with sockets of their own (extra.go).
//
// Read first: core.go, path.go, choose.go, contact.go; then conn.go. magicsock/udp has the batched sockets,
// magicsock/disco the wire format.
package magicsock
