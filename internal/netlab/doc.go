// Package netlab builds whole networks on one Linux machine for tests of whole programs: every host is a network
// namespace with its own interfaces, routes, firewall and NAT, joined by cables (veth pairs) and switches (bridges). A
// program that measures may use it too: see T.
//
//	┌ host a ─────┐        ┌ router r ────────────┐        ┌ host s ─────┐
//	│ program, TUN│        │ NAT, forwarding      │        │ program     │
//	│ eth0 ───────┼─ lan ──┼─ eth0         eth1 ──┼─ wan ──┼─ eth0       │
//	└─────────────┘ switch └──────────────────────┘ switch └─────────────┘
//
// Nothing but the kernel takes part: links, rules, echoes and captures are made by Go libraries, so no tool has to
// be installed. It needs root and /dev/net/tun; without them a test is skipped, or fails where the environment says
// that it must run (see Need).
//
// Who owns what: the Lab owns everything made through it and takes it down when the test ends: programs first
// (interrupted, then killed, by process id), then captures, then the namespaces, with which their links go. Setting
// up never returns an error: what cannot be built ends the test, so those calls belong on the test's own goroutine.
//
// The zero state of a host is what a test needs, not what a distribution ships: IPv6 on, no duplicate address
// detection (an address works at once), no reverse path filter, no firewall.
//
// Read first: lab_linux.go, host_linux.go, then iface_linux.go.
package netlab
