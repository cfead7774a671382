// Package platform is what the operating system looks like and should look like, as data, and the decisions made from
// that data alone. The folders linux, darwin and windows make it so; each has a System with the same methods:
//
//	Apply(Desired) error            the interface gets its addresses, MTU and routes; again and again is harmless
//	Clear() error                   takes back what Apply did
//	Snapshot() (Host, error)        links, addresses, routes as they are
//	Watch(ctx, changed func()) error  tells when they change, until ctx is done
//	Problems(Desired, port) []Problem what of the host gets in the way
//	CleanLeftovers(name) error      removes what a killed run left behind
//
// Decide, then act: what is a candidate address, which prefix is free, what overlaps, whether a firewall lets us
// through are pure functions of values and tested for every system on one.
//
// Zones of link-local addresses are interface names.
//
// Read first: host.go, then candidates.go, prefix.go, watch.go.
package platform
