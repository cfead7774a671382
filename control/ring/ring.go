package ring

import (
	"iter"
	"slices"

	"github.com/meshnet/meshnet/identity"
)

// Ring is the members of a network in the order of their positions. Immutable: nodes that know the same members may
// share one.
type Ring struct {
	network identity.NetworkID
	members []member
}

type member struct {
	at Position
	id identity.PeerID
}

func (m member) compare(o member) int {
	if c := m.at.Compare(o.at); c != 0 {
		return c
	}
	return m.id.Compare(o.id)
}

// New makes the ring of a network's unrevoked members, given in any order.
func New(network identity.NetworkID, ids []identity.PeerID) *Ring {
	r := &Ring{network: network, members: make([]member, 0, len(ids))}
	for _, id := range ids {
		r.members = append(r.members, member{PositionOf(network, id), id})
	}
	r.sort()
	return r
}

func (r *Ring) sort() {
	slices.SortFunc(r.members, member.compare)
	r.members = slices.Compact(r.members)
}

// With is the ring with members added and removed; one that is in both lists is removed. It costs one copy, and with
// nothing to do it is the same ring.
func (r *Ring) With(added, removed []identity.PeerID) *Ring {
	gone := make(map[identity.PeerID]bool, len(removed))
	for _, id := range removed {
		gone[id] = true
	}
	fresh := &Ring{network: r.network}
	for _, id := range added {
		if !gone[id] && !r.Has(id) {
			fresh.members = append(fresh.members, member{PositionOf(r.network, id), id})
		}
	}
	if len(fresh.members) == 0 && !slices.ContainsFunc(removed, r.Has) {
		return r
	}
	fresh.sort()
	next := &Ring{network: r.network, members: make([]member, 0, len(r.members)+len(fresh.members))}
	for _, m := range r.members {
		for len(fresh.members) > 0 && fresh.members[0].compare(m) < 0 {
			next.members = append(next.members, fresh.members[0])
			fresh.members = fresh.members[1:]
		}
		if !gone[m.id] {
			next.members = append(next.members, m)
		}
	}
	next.members = append(next.members, fresh.members...)
	return next
}

// Len is the number of members.
func (r *Ring) Len() int { return len(r.members) }

// Has reports whether id is a member.
func (r *Ring) Has(id identity.PeerID) bool {
	_, found := slices.BinarySearchFunc(r.members, member{PositionOf(r.network, id), id}, member.compare)
	return found
}

// All are the members by position.
func (r *Ring) All() iter.Seq[identity.PeerID] {
	return func(yield func(identity.PeerID) bool) {
		for _, m := range r.members {
			if !yield(m.id) {
				return
			}
		}
	}
}

// from is the index of the first member at or after p, wrapping.
func (r *Ring) from(p Position) int {
	i, _ := slices.BinarySearchFunc(r.members, p, func(m member, p Position) int { return m.at.Compare(p) })
	if i == len(r.members) {
		return 0
	}
	return i
}

// Successors are up to n members after id for which ok holds, nearest first. id itself is none and need not be a
// member; ok nil takes everybody.
func (r *Ring) Successors(id identity.PeerID, n int, ok func(identity.PeerID) bool) []identity.PeerID {
	return r.walk(id, n, 1, ok)
}

// Predecessors are up to n members before id for which ok holds, nearest first.
func (r *Ring) Predecessors(id identity.PeerID, n int, ok func(identity.PeerID) bool) []identity.PeerID {
	return r.walk(id, n, -1, ok)
}

// walk goes round once at most, by steps of 1 or -1.
func (r *Ring) walk(id identity.PeerID, n, step int, ok func(identity.PeerID) bool) []identity.PeerID {
	var near []identity.PeerID
	size := len(r.members)
	if size == 0 {
		return nil
	}
	i := r.from(PositionOf(r.network, id))
	if step < 0 {
		i = (i + size - 1) % size
	}
	for range size {
		if len(near) >= n {
			break
		}
		if m := r.members[i].id; m != id && (ok == nil || ok(m)) {
			near = append(near, m)
		}
		i = (i + step + size) % size
	}
	return near
}
