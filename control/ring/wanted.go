package ring

import (
	"math/bits"
	"slices"

	"github.com/meshnet/meshnet/identity"
)

const (
	// neighbours is how many successors and how many predecessors a member keeps a session with.
	neighbours = 2
	// ringFrom and fullTo are the numbers of members at which the topology changes. They lie apart so that somebody who
	// comes and goes does not turn a network over.
	ringFrom, fullTo = 33, 28
)

// Mode is which topology a network's size asks for.
type Mode uint8

// The topologies.
const (
	Full   Mode = iota // everybody keeps a session with everybody
	Ringed             // with neighbours on the ring and fingers
)

// Next is the mode after a count of the unrevoked members, this node among them: Ringed from 33 on, Full again from 28
// down, and in between what it was. The zero Mode is right for a node that counts for the first time.
func (m Mode) Next(count int) Mode {
	switch {
	case count >= ringFrom:
		return Ringed
	case count <= fullTo:
		return Full
	}
	return m
}

// Fingers are the members that halve what is left of any way round, farthest first: for each doubling of distance, from
// 2^k to just below 2^(k+1) after id, one member for which ok holds, where there is one. Which one is drawn from id's own
// position: who stands behind a wide gap is not everybody's finger then. Only the upper ⌈log2 N⌉ doublings count; what
// lies nearer is the successors'. After "Chord: A Scalable Peer-to-peer Lookup Service for Internet Applications" (Stoica
// and others, 2001), §4.3, and the randomized Chord of "The Impact of DHT Routing Geometry on Resilience and Proximity"
// (Gummadi and others, 2003), §3.
func (r *Ring) Fingers(id identity.PeerID, ok func(identity.PeerID) bool) []identity.PeerID {
	var fingers []identity.PeerID
	size := len(r.members)
	if size == 0 {
		return nil
	}
	here := PositionOf(r.network, id)
	for k := 127; k >= 128-bits.Len(uint(size-1)); k-- {
		near, far := doubling(k), Position{} // which is 2^128: where the ring began
		if k < 127 {
			far = doubling(k + 1)
		}
		if m, found := r.drawn(here, k, near, far, id, ok); found {
			fingers = append(fingers, m)
		}
	}
	return fingers
}

// drawn is a member but id at a distance of at least near and below far for which ok holds: the one drawn for a position,
// or the next of those.
func (r *Ring) drawn(here Position, k int, near, far Position, id identity.PeerID, ok func(identity.PeerID) bool) (identity.PeerID, bool) {
	size := len(r.members)
	from, to := r.from(here.plus(near))%size, r.from(here.plus(far))%size
	count := (to - from + size) % size
	if d := here.To(r.members[from].at); d.Compare(near) < 0 || far != (Position{}) && d.Compare(far) >= 0 {
		return identity.PeerID{}, false
	}
	if count == 0 {
		count = size // all of them
	}
	first := here.draw(k, count)
	for n := range count {
		m := r.members[(from+(first+n)%count)%size]
		if m.id != id && (ok == nil || ok(m.id)) {
			return m.id, true
		}
	}
	return identity.PeerID{}, false
}

// Wanted are the members that self dials and keeps a session with, each once. In Full mode these are all, whether
// reachable or not: how often to try is the dialler's matter. In Ringed mode they are 2 successors, 2 predecessors and the
// fingers, each the nearest that is reachable, and at most 4 + ⌈log2 N⌉.
//
// reachable tells whether a session with a member exists or is worth a try. One not tried for a while must count as
// reachable, or the two halves of a network that was split never look for each other. One that is full does not count.
func (r *Ring) Wanted(mode Mode, self identity.PeerID, reachable func(identity.PeerID) bool) []identity.PeerID {
	if mode == Full {
		return r.Successors(self, len(r.members), nil)
	}
	wanted := r.Successors(self, neighbours, reachable)
	add := func(ids []identity.PeerID) {
		for _, id := range ids {
			if !slices.Contains(wanted, id) {
				wanted = append(wanted, id)
			}
		}
	}
	add(r.Predecessors(self, neighbours, reachable))
	add(r.Fingers(self, reachable))
	return wanted
}

// Surplus are those of self's sessions that neither end wants, so that a network that outgrew the full mesh can let go
// of them a few at a time. What the other ends want is worked out as self sees who is reachable. Partners that are no
// members are not named. Ends that see it differently may not agree, so a session is best let go of by the end that
// dialled it, or it is dialled again.
func (r *Ring) Surplus(mode Mode, self identity.PeerID, sessions []identity.PeerID, reachable func(identity.PeerID) bool) []identity.PeerID {
	if mode == Full {
		return nil
	}
	seen := func(id identity.PeerID) bool { return id == self || reachable == nil || reachable(id) }
	mine := r.Wanted(mode, self, reachable)
	var surplus []identity.PeerID
	for _, s := range sessions {
		if r.Has(s) && !slices.Contains(mine, s) && !slices.Contains(r.Wanted(mode, s, seen), self) {
			surplus = append(surplus, s)
		}
	}
	return surplus
}
