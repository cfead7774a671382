// Package sim is a world in memory: a clock, links, hosts and NATs, on which whole meshes run through hours in
// seconds. It knows nothing of tests, so the program's own demonstrations can use it too.
//
//	            events, ordered by (time, order of scheduling)
//	World ──────────────────────────────────────────────────────▶ fn()
//	  └─ Network   the public network, one Link between any two of its hosts
//	       ├─ Host ── Socket ── Send(to, packet) … func(from, packet)
//	       └─ NAT  ── Host ── Socket          (RFC 4787 mapping and filtering)
//	            └─ NAT ── Host                (carrier-grade NAT)
//
// A World is owned by one goroutine: it calls everything that happens, one after the other, at a time of its own that
// starts at Epoch and only moves from event to event. Random choices come from the seed. So the same program with
// the same seed gives the same trace, to the last packet, and a failure is repeated by its seed.
//
// Streams is the other half, for code that wants a net.Conn and has goroutines: connections in memory, with delays
// on the runtime's clock, made so that inside a testing/synctest bubble every wait is a durable one.
//
// Read first: world.go, then network.go, nat.go; stream.go stands alone.
package sim
