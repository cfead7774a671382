package tunnel

import (
	"bytes"
	"encoding/binary"
)

// verdict remembers how the last packet was judged: those of one flow come one behind another, and the same addresses have
// the same verdict as long as nothing changed and no policy looks at more. Owned by a goroutine of the packet path.
type verdict struct {
	self  *self
	table *table
	peer  *peer
	ends  [32]byte // addresses of both ends
	size  int      // of ends; 0: nothing is remembered
}

// ends are the addresses of both ends of a whole IP packet, and its size without what lies behind it; nil for anything
// else.
func ends(pkt []byte) (both []byte, size int) {
	if len(pkt) < ipv4HeaderLen {
		return nil, 0
	}
	switch pkt[0] >> 4 {
	case 4:
		both, size = pkt[12:20], int(binary.BigEndian.Uint16(pkt[2:]))
		if size < ipv4HeaderLen {
			return nil, 0
		}
	case 6:
		if len(pkt) < ipv6HeaderLen {
			return nil, 0
		}
		both, size = pkt[8:40], int(binary.BigEndian.Uint16(pkt[4:]))+ipv6HeaderLen
	}
	if size > len(pkt) {
		return nil, 0
	}
	return both, size
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
