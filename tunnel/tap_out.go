package tunnel

import (
	"errors"
	"net/netip"
	"time"
)

// errNoMember is why the netstack's packet went nowhere.
var errNoMember = errors.New("no member has that address")

// errDropped is any other reason, which the counters hold.
var errDropped = errors.New("packet dropped")

// fromOS judges a packet that a program sent. true: the device shall send it. Otherwise it was dropped, parked, or
// given to the netstack.
func (t *tap) fromOS(pkt []byte) bool {
	self := t.self.Load()
	src, dst, ok := addresses(pkt)
	switch {
	case !ok:
		t.counters.add(outMalformed)
		return false
	case self.isControl(src) || self.isControl(dst):
		t.counters.add(outControl)
		return false
	case !self.isIdentity(src):
		t.counters.add(outSource)
		return false
	case self.isService(dst):
		t.inject(pkt)
		return false
	case len(pkt) > t.mtu:
		t.counters.add(outTooBig)
		t.answer(self, icmpTooBig, src, dst, pkt)
		return false
	}
	p := t.table.Load().byIP[dst]
	if p == nil {
		t.counters.add(outNoMember)
		t.answer(self, icmpUnreachable, src, dst, pkt)
		return false
	}
	return t.toMember(self, p, pkt, true) != waits
}

// fromStack judges a packet of the netstack and sends it on its way. pkt is changed by nobody and ours; it is given
// away or freed.
func (t *tap) fromStack(pkt *packet) error {
	b := pkt.bytes()
	self := t.self.Load()
	src, dst, ok := addresses(b)
	switch {
	case !ok:
		pkt.free()
		t.counters.add(outMalformed)
		return errDropped
	case self.isService(src) && self.isIdentity(dst):
		t.toOS(pkt)
		return nil
	case self.isControl(src) != self.isControl(dst), self.isService(src), self.isService(dst):
		pkt.free()
		t.counters.add(outStackSource)
		return errDropped
	}
	p := t.table.Load().byIP[dst]
	if p == nil {
		pkt.free()
		t.counters.add(outNoMember)
		return errNoMember
	}
	switch t.toMember(self, p, b, !self.isControl(src)) {
	case waits:
		pkt.free()
		return nil // parked, or policy: both look like a silent network
	case copied:
		pkt.kept = p
	}
	if !t.queue.push(pkt) {
		t.counters.add(outQueueFull)
		pkt.free()
		return errDropped
	}
	return nil
}

// toMember applies the policy and parks what has to wait; what the policy drops waits for ever.
func (t *tap) toMember(self *self, p *peer, pkt []byte, filtered bool) kept {
	if filtered && self.filter != nil && !self.filter(Outbound, pkt, p.member.Load()) {
		t.counters.add(outFilter)
		return waits
	}
	if p.state.Load() == open {
		return passes
	}
	now := time.Now()
	verdict := t.lot.keep(p, pkt, now)
	if verdict == waits {
		t.want(p, now.UnixNano())
	}
	return verdict
}

// toOS writes one packet of the netstack to the OS TUN. In userspace mode the stack keeps packets between its own
// addresses to itself, and none comes here.
func (t *tap) toOS(pkt *packet) {
	if t.os != nil {
		if _, err := t.os.Write([][]byte{pkt.buf}, headroom); err != nil {
			t.counters.add(inTUNWrite)
		}
	}
	pkt.free()
}

// answer sends an ICMP error for pkt back to the program, within the rate limit.
func (t *tap) answer(self *self, kind icmpKind, src, dst netip.Addr, pkt []byte) {
	from := self.service6
	if src.Is4() {
		from = self.service4
	}
	if !from.IsValid() {
		from = dst
	}
	switch out, verdict := t.icmp.build(kind, from, src, dst, pkt, t.mtu, time.Now()); verdict {
	case icmpSend:
		if _, err := t.os.Write([][]byte{out}, headroom); err != nil {
			t.counters.add(inTUNWrite)
		}
	case icmpTooMany:
		t.counters.add(icmpLimited)
	}
}
