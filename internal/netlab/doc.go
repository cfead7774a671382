// Package netlab builds whole networks on one Linux machine for tests of whole programs: every host is a network
// namespace with its own interfaces, routes, firewall and NAT, joined by cables (veth pairs) and switches (bridges). A
// program that measures may use it too: see T.
//
//	┌ host a ─────┐        ┌ router r ────────────┐        ┌ host s ─────┐
//	│ program, TUN│        │ NAT, forwarding      │        │ program     │
//	│ eth0 ───────┼─ lan ──┼─ eth0         eth1 ──┼─ wan ──┼─ eth0       │
//	└─────────────┘ switch └──────────────────────┘ switch └─────────────┘
//
// Most tests want less to build by hand: Lab.Internet is a core router, with public hosts and sites on it, and a site
// is a LAN behind a router of some Kind (or hosts with public addresses):
//
//	w := netlab.New(t).Internet()
//	relay := w.Public("relay")
//	a := w.Site(netlab.FullCone).Host("a")
//	b := w.Site(netlab.Symmetric).Host("b")
//
// A host, a site or a path can then change under traffic: Iface.SetAddr, SetDown, Unplug and Cut, Internet.Renumber
// and Part, Site.Move, Host.ForgetFlows, Process.Pause and Kill.
//
// Nothing but the kernel takes part, with one exception: a cable with a Line, which delays or loses frames, goes
// through the lab's own process. Links, rules, echoes and captures are made by Go libraries, so no tool has to be
// installed. It needs root and /dev/net/tun; without them a test is skipped, or fails where the environment says that
// it must run (see Need).
//
// Who owns what: the Lab owns everything made through it and takes it down when the test ends: programs first
// (interrupted, then killed, by process id), then captures and lines, then the namespaces, with which their links go.
// Setting up never returns an error: what cannot be built ends the test, so those calls belong on the test's own
// goroutine.
//
// The zero state of a host is what a test needs, not what a distribution ships: IPv6 on, no duplicate address
// detection (an address works at once), no reverse path filter, no firewall.
//
// Read first: internet_linux.go and site_linux.go, or lab_linux.go, host_linux.go, then iface_linux.go for a network
// of another shape. The NAT kinds are told in kind.go and made in nat_rules_linux.go.
package netlab
