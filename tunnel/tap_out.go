package tunnel

import (
	"errors"
	"net/netip"
	"time"
)

// Why a packet of the netstack does not go to a member.
var (
	errNoMember = errors.New("no member has that address")
	errForHost  = errors.New("for the OS")
	errFiltered = errors.New("policy")
	errDropped  = errors.New("packet dropped") // any other reason, which the counters hold
)

// outbound is where a packet of the OS goes.
type outbound int

const (
	outDropped outbound = iota
	outStack            // the netstack answers it
	outMember
)

// fromOS judges a packet that a program sent, or the superpacket that many of one flow came as; size is that of the
// longest packet in it. The OS's reader owns answers.
func (t *tap) fromOS(answers *icmpWriter, pkt []byte, size int) (*peer, outbound) {
	self := t.self.Load()
	src, dst, _, ok := addresses(pkt)
	switch {
	case !ok:
		t.counters.add(outMalformed)
		return nil, outDropped
	case self.isControl(src) || self.isControl(dst):
		t.counters.add(outControl)
		return nil, outDropped
	case !self.isIdentity(src):
		t.counters.add(outSource)
		return nil, outDropped
	case self.isService(dst):
		return nil, outStack
	case size > t.mtu:
		t.counters.add(outTooBig)
		t.answer(answers, self, icmpTooBig, src, dst, pkt, t.mtu)
		return nil, outDropped
	}
	p := t.table.Load().owner(dst)
	if p == nil {
		t.counters.add(outNoMember)
		if size == len(pkt) {
			t.answer(answers, self, icmpUnreachable, src, dst, pkt, t.mtu)
		}
		return nil, outDropped
	}
	if limit := p.limit(t.mtu); size > limit {
		t.counters.add(outTooBig)
		t.answer(answers, self, icmpTooBig, src, dst, pkt, limit)
		return nil, outDropped
	}
	if !t.allowed(self, p, pkt) {
		return nil, outDropped
	}
	return p, outMember
}

// fromStack judges a packet of the netstack.
func (t *tap) fromStack(pkt []byte) (p *peer, err error) {
	self := t.self.Load()
	src, dst, _, ok := addresses(pkt)
	switch {
	case !ok:
		t.counters.add(outMalformed)
		return nil, errDropped
	case self.isService(src) && self.isIdentity(dst):
		return nil, errForHost
	case self.isControl(src) != self.isControl(dst), self.isService(src), self.isService(dst):
		t.counters.add(outStackSource)
		return nil, errDropped
	}
	if p = t.table.Load().owner(dst); p == nil {
		t.counters.add(outNoMember)
		return nil, errNoMember
	}
	if !self.isControl(src) && !t.allowed(self, p, pkt) {
		return nil, errFiltered
	}
	return p, nil
}

// allowed applies the policy.
func (t *tap) allowed(self *self, p *peer, pkt []byte) bool {
	if self.filter != nil && !self.filter(Outbound, pkt, p.member.Load()) {
		t.counters.add(outFilter)
		return false
	}
	return true
}

// answer sends an ICMP error for pkt back to the program, within the rate limit. mtu is for icmpTooBig.
func (t *tap) answer(w *icmpWriter, self *self, kind icmpKind, src, dst netip.Addr, pkt []byte, mtu int) {
	from := self.service6
	if src.Is4() {
		from = self.service4
	}
	if !from.IsValid() {
		from = dst
	}
	switch out, verdict := w.build(kind, from, src, dst, pkt, mtu, time.Now()); verdict {
	case icmpSend:
		t.toHost(out)
	case icmpTooMany:
		t.counters.add(icmpLimited)
	}
}
