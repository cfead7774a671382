package tunnel

// Write implements tun.Device: sorts what the device decrypted. The device checked that each packet's source belongs
// to the peer that sent it. What the OS gets is moved to the front of bufs, which belong to this call.
func (t *tap) Write(bufs [][]byte, offset int) (int, error) {
	self, table := t.self.Load(), t.table.Load()
	keep := bufs[:0]
	for _, b := range bufs {
		pkt := b[offset:]
		switch t.judge(self, table, pkt) {
		case toTUN:
			keep = append(keep, b)
		case toStack:
			t.inject(pkt)
		}
	}
	if len(keep) > 0 {
		// An interface that is down refuses every packet: not worth the device's error log.
		if _, err := t.os.Write(keep, offset); err != nil {
			t.counters.add(inTUNWrite)
		}
	}
	return len(bufs), nil
}

type inbound int

const (
	dropped inbound = iota
	toTUN
	toStack
)

func (t *tap) judge(self *self, table *table, pkt []byte) inbound {
	src, dst, ok := addresses(pkt)
	if !ok {
		t.counters.add(inMalformed)
		return dropped
	}
	// The device's allowed addresses may lag behind the members.
	p := table.byIP[src]
	if p == nil {
		t.counters.add(inNoMember)
		return dropped
	}
	if p.state.Load() == trying && !p.heard.Load() {
		p.heard.Store(true)
	}
	switch control := self.isControl(src); {
	case control != self.isControl(dst):
		t.counters.add(inControl)
		return dropped
	case control:
		if dst != self.control {
			t.counters.add(inDestination)
			return dropped
		}
		return toStack
	case !self.isIdentity(dst):
		t.counters.add(inDestination)
		return dropped
	case self.filter != nil && !self.filter(Inbound, pkt, p.member.Load()):
		t.counters.add(inFilter)
		return dropped
	case self.userspace:
		return toStack
	}
	return toTUN
}
