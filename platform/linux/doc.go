// Package linux is package platform's System for Linux: netlink for the interface, its addresses and routes and for
// watching them, nf_tables (reading only) and /proc for what gets in the way.
//
//	Apply   link up, MTU ─► stale addresses and routes off ─► missing ones on     (own interface only)
//	Watch   rtnetlink groups ─► own interface ignored ─► at once, then once a second ─► compare snapshots
//
// Routes carry a protocol number of their own, so that Apply never removes one that somebody else put on the
// interface, and a metric above connected and DHCP routes: a network the host is part of stays its own.
//
// What a killed process leaves: nothing. The TUN is not persistent; it goes with the last descriptor, and its
// addresses and routes with it. Only an interface that was made persistent outlives its maker (CleanLeftovers).
//
// Every call opens and closes its own netlink socket, in the network namespace of the calling thread.
//
// Read first: system_linux.go, apply_linux.go, watch_linux.go, firewall_linux.go.
package linux
