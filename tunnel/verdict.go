package tunnel

import "bytes"

// verdict remembers how the last packet was judged: those of one flow come one behind another, and the same addresses have
// the same verdict as long as nothing changed and no policy looks at more. Owned by a goroutine of the packet path.
type verdict struct {
	self  *self
	table *table
	peer  *peer
	ends  [32]byte // addresses of both ends
	size  int      // of ends; 0: nothing is remembered
}

// holds reports whether a packet between these ends has the verdict that is remembered.
func (v *verdict) holds(s *self, t *table, both []byte) bool {
	return v.size > 0 && v.size == len(both) && v.self == s && v.table == t && bytes.Equal(v.ends[:v.size], both)
}

// remember keeps a verdict, unless a policy decides each packet anew.
func (v *verdict) remember(s *self, t *table, peer *peer, both []byte) {
	v.size = 0
	if s.filter == nil && both != nil {
		v.self, v.table, v.peer = s, t, peer
		v.size = copy(v.ends[:], both)
	}
}
