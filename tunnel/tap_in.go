package tunnel

type inbound int

const (
	inDropped inbound = iota
	inTUN
	inStack
)

// fromMember judges what a session of p's opened, and returns it without its padding.
func (t *tap) fromMember(self *self, table *table, p *peer, padded []byte) ([]byte, inbound) {
	src, dst, size, ok := addresses(padded)
	if !ok {
		t.counters.add(inMalformed)
		return nil, inDropped
	}
	pkt := padded[:size]
	if table.owner(src) != p {
		t.counters.add(inSource)
		return nil, inDropped
	}
	switch control := self.isControl(src); {
	case control != self.isControl(dst):
		t.counters.add(inControl)
		return nil, inDropped
	case control:
		if dst != self.control {
			t.counters.add(inDestination)
			return nil, inDropped
		}
		return pkt, inStack
	case !self.isIdentity(dst):
		t.counters.add(inDestination)
		return nil, inDropped
	case self.filter != nil && !self.filter(Inbound, pkt, p.member.Load()):
		t.counters.add(inFilter)
		return nil, inDropped
	case self.userspace:
		return pkt, inStack
	}
	return pkt, inTUN
}
