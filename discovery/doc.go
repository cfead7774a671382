// Package discovery finds addresses: where this node may be reached from outside, and names of nodes to ask first.
//
// Own gathers the node's underlay addresses from its interfaces, from what the user advertises and from what members
// see, and decides what of that to believe. Resolver turns "host:port" into addresses.
//
// Pure but for Resolver. Read first: own.go.
package discovery
