package meshnet

import (
	"slices"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// maxHomes is how many homes a node has: one may go while the other is there.
const maxHomes = 2

// homeFacts are what homes are chosen from.
type homeFacts struct {
	nat     netmap.NAT
	relays  []string          // relay servers that are home to us now, the best first
	members []identity.PeerID // members with a direct path to us whom others reach from outside, the best first
	before  []netmap.Home
}

// chooseHomes names where others can always signal this node. Relay servers come first: they are there for it, and
// connected anyway. Members fill up for a node that others cannot reach by themselves; whoever is a home stays one as
// long as it can be, as others have heard of it.
func chooseHomes(f homeFacts) []netmap.Home {
	var homes []netmap.Home
	add := func(h netmap.Home) {
		if len(homes) < maxHomes && !slices.Contains(homes, h) {
			homes = append(homes, h)
		}
	}
	for _, url := range f.relays {
		add(netmap.Home{Relay: url})
	}
	if f.nat == netmap.NATNone {
		return homes
	}
	for _, h := range f.before {
		if slices.Contains(f.members, h.Member) {
			add(h)
		}
	}
	for _, id := range f.members {
		add(netmap.Home{Member: id})
	}
	return homes
}

// memberHomes are the members among homes.
func memberHomes(homes []netmap.Home) []identity.PeerID {
	var ids []identity.PeerID
	for _, h := range homes {
		if !h.Member.IsZero() {
			ids = append(ids, h.Member)
		}
	}
	return ids
}
