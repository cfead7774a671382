// Package tunnel carries packets between this node's programs and the members: WireGuard, run to completion in the
// goroutine that read the packet, between the operating system's TUN or an internal netstack (gVisor) and the socket.
//
//	outbound                     host reader, or whoever wrote to the netstack
//	 OS TUN ── offload.Split ──┐
//	                           ├─ tap_out: whose? may it? ── outbox: seal in the arena ── datagram.Peer.Send
//	 netstack ─────────────────┘             │ no session            ▲ in order
//	                                         └─▶ lot ── owner ───────┘
//
//	inbound                      one goroutine for each leg of the socket
//	 socket ── train ─┬─ inbox: open where it lies, replays out ── tap_in: from whom? for us? ─┬─ offload.Join ── OS TUN
//	                  └─ door ── queue ── owner                                                └─ netstack
//
// Outbound: a packet of a program must come from an own identity address and go to a member; one to a service address is
// answered by the netstack; one from or to a control address is dropped, so no program can speak as its node. A
// superpacket is judged once and cut straight into the arena, where each piece is sealed. What one batch has for one
// member leaves together. When the TUN's queue stands, package aqm has single packets dropped.
//
// Inbound: datagrams that one session opened form a run. Its source is told to the socket once, after the replays are
// out. Each packet must come from an address of the session's own member: control to control goes to the netstack, the
// own identity address to the OS TUN or, without one, to the netstack; everything else is dropped with a counter.
//
// A member costs a map entry until somebody talks. Its first packet is parked in the lot and leaves a note; the owner
// takes the note to the machine (package wg), which begins a handshake. When there is a session the parked packets leave
// in order, and only then are later ones let past. The same happens when a session expired.
//
// Handshake messages pass the door first: a wrong MAC1 ends there, and while more of them wait than a few milliseconds
// of work, an initiation has to bear the cookie of its source. The door's queue is bounded, so a flood costs the data
// path next to nothing.
//
// Who owns what:
//   - owner is the only goroutine that runs wg.Machine and its timers. It gets commands, handshake messages and notes,
//     and never waits for the packet path. The callbacks of Config are called in it.
//   - The packet path never waits for the owner. It reads snapshots (self, table, wg.Table, wg.Peer) through atomics.
//   - An outbox, its arena and a Split belong to one goroutine: the host reader, the owner, or the one call of the
//     netstack that took them from a pool. An inbox and its Join belong to one leg.
//   - lot has a mutex, under which alone a peer changes between parked and open; door has one for its cookies.
//     Neither is held while anything is sent.
//
// Read first: tunnel.go, then tap.go, tap_out.go, tap_in.go, outbox.go, inbox.go, members.go, lot.go, owner.go, door.go.
// host.go is the OS's side, netstack.go with netstack_out.go and netstack_in.go the stack's; dial.go, listen.go,
// forward.go and ping.go are what programs of this node use it for.
package tunnel
