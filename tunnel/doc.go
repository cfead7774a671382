// Package tunnel carries packets between this node's programs and the members: a WireGuard device, the wrapper
// between it and the operating system's TUN, an internal netstack (gVisor), and peers on demand.
//
//	programs ─ OS TUN ─┐                                     ┌─ conn.Bind ─ magicsock
//	                   ├─ tap ──────── WireGuard device ─────┘
//	node's own ─ stack ┘   │
//	             lot ──────┘  packets that wait for a peer
//
// Outbound: tap.Read hands the device batches from three sources: the OS TUN (read directly, no goroutine and no copy
// in between), the netstack, and released packets of the lot. Both of the latter come through one queue, bounded in
// bytes. A packet from the OS must come from an own identity address and go to a member; one to a service address is
// answered by the netstack; one from or to a control address is dropped, so no program can speak as its node.
//
// Inbound: tap.Write sorts what the device decrypted: control to control goes to the netstack, the own identity
// address to the OS TUN or, without one, to the netstack; everything else is dropped with a counter.
//
// A member costs a map entry until somebody talks. Its first packet is parked and Config.Want is called; contact is
// made elsewhere and ends in Install. A peer leaves the device 180 s after its last handshake and packet.
//
// Who owns what: the tables that packets look at are immutable snapshots (self, table); the lot and the queue have a
// mutex each, never held together; the owner loop in Run is the only one that configures the device and owns all
// timers. Nothing on the packet path calls the device. device.go is the only file that knows the wireguard module's
// device: an own data path takes its place behind the engine interface of owner.go.
//
// Read first: tunnel.go, then tap.go, tap_out.go, tap_in.go, members.go, lot.go, owner.go.
package tunnel
