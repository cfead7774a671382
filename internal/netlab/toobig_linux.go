package netlab

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// blackHole makes a site's cable to the outside swallow what is larger than its MTU, if it has to.
func (s *Site) blackHole(card *Iface) {
	s.w.lab.t.Helper()
	if !s.cfg.BlackHole {
		return
	}
	before := s.w.core
	if s.cfg.Behind != nil {
		before = s.cfg.Behind.Router
	}
	var dsts []netip.Prefix
	for _, p := range card.addrs {
		dsts = append(dsts, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	if s.net6.IsValid() {
		dsts = append(dsts, s.net6)
	}
	before.dropTooBig(nftables.ChainHookOutput, dsts...)
	if s.Router != nil {
		s.Router.dropTooBig(nftables.ChainHookOutput)
		s.Router.dropTooBig(nftables.ChainHookForward)
	}
}

// dropTooBig drops the messages that a packet was too big (RFC 792 "fragmentation needed", RFC 4443 §3.2): those about
// packets to one of the destinations, or all of them.
func (h *Host) dropTooBig(hook *nftables.ChainHook, dsts ...netip.Prefix) {
	h.lab.t.Helper()
	const icmpHeader, dst4, dst6 = 8, 16, 24 // where the packet begins that it is about, and its destination in there
	type4 := slices.Concat(onProto(unix.IPPROTO_ICMP), onTransport(0, []byte{3, 4}))
	type6 := slices.Concat(onProto(unix.IPPROTO_ICMPV6), onTransport(0, []byte{2}))
	rules := [][]expr.Any{}
	if len(dsts) == 0 {
		rules = [][]expr.Any{type4, type6}
	}
	for _, d := range dsts {
		want := d.Masked().Addr().AsSlice()[:d.Bits()/8]
		if d.Addr().Is4() {
			rules = append(rules, slices.Concat(type4, onTransport(icmpHeader+dst4, want)))
		} else {
			rules = append(rules, slices.Concat(type6, onTransport(icmpHeader+dst6, want)))
		}
	}
	c, table := h.newTable(nftables.TableFamilyINet)
	ch := c.AddChain(&nftables.Chain{
		Table: table, Name: "toobig", Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter,
	})
	for _, es := range rules {
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: append(es, &expr.Verdict{Kind: expr.VerdictDrop})})
	}
	h.must("drop too big", c.Flush())
}
