// Package netmap is what a node knows at one moment, as immutable values that every part reads: the network, itself
// and its peers. control makes a new Map whenever something changed; meshnet's reconcile loop takes the Diff of two
// and tells the workers. A Map is never changed after it was made.
//
// Here also are the addresses, which are functions of ids alone: the network's IPv6 prefix, and each member's
// identity and control address within it.
//
//	fdXX:XXXX:XXXX:0000::/64   services (the resolver is ::53)
//	fdXX:XXXX:XXXX:0001::/64   identity addresses, 64 bits of hash(PeerID)
//	fdXX:XXXX:XXXX:0002::/64   control addresses, the same 64 bits
//
// Read first: netmap.go, then addr.go.
package netmap
