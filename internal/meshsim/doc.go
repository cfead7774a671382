// Package meshsim runs the control side of a whole network in virtual time, in one process: membership, cards, sessions
// and the ring are the program's own, clock and connections are made up.
//
//	control.Virtual ── frames ──▶ link: delay by distance, cost with all overhead ──▶ control.Virtual
//	      ▲ work, tick                                                          counted per node and second
//	      └────────────── sim.World: what happens next
//
// Packets, paths and NATs are not simulated: everybody reaches everybody who runs. What a session costs on the wire is
// reckoned from what it sends (cost.go).
//
// Read first: net.go, node.go, cost.go, scenario.go.
package meshsim
