// Package meshnet is a private network that machines make among themselves: no control server, no account, nothing in
// the middle that can read traffic. A Node is one member of one network. A program may hold several.
//
//	n, err := meshnet.Start(ctx, meshnet.Config{Dir: "/var/lib/app/mesh", Join: token, Hostname: "web"})
//	ln, err := n.Listen("tcp", ":80")
//	conn, err := n.Dial(ctx, "tcp", "alice:80")
//
// The zero Config founds a network of its own that lives in memory and runs without root on an internal netstack.
//
// This package joins the parts and holds no protocol:
//
//	control ──▶ netmap.Map ──▶ reconcile (one loop, coalesced) ──▶ magicsock, tunnel, platform
//	   ▲                                                               │
//	   └────────── events: contact made, address seen, link changed ───┘
//
// Each worker is a package of its own and knows none of the others; see the package map in the README.
//
// Read first: node.go, then workers.go, reconcile.go, hear.go, join.go.
package meshnet
