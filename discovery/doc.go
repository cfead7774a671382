// Package discovery finds addresses: where this node may be reached from outside, and names of nodes to ask first.
//
//	interfaces, --advertise, members' word, router ───────────┐
//	STUN servers ◀─▶ Reporter ◀─ rounds ─▶ Behaviour ─ Report ─┴─▶ Own ─ Endpoints ─▶ told to others
//
// Own gathers the node's underlay addresses and decides what of them to believe and in which order to tell it. Reporter
// is the loop that asks STUN servers (RFC 8489) by the node's own socket, which belongs to somebody else: it is given a
// function to send by, and handed what comes back. What is asked, and what the answers say about NATs (RFC 5780), is
// Behaviour's, which has neither socket nor clock. Resolve turns "host:port" into addresses. Package portmap has the
// router map the port.
//
// Answers count only from the address that was asked and with the 96 random bits of the request; the rest is counted
// and costs a look at the header. An address that a server names is sent a bounded number of small packets, and only
// when it is of the same kind of network as the server's own.
//
// Read first: own.go, then behaviour.go, asks.go, reporter.go.
package discovery
