package discovery

import (
	"net/netip"
	"slices"

	"github.com/meshnet/meshnet/netmap"
)

// toldEndpoints is how many endpoints others keep of those that a node tells: the first ones.
const toldEndpoints = 12

// rank is a kind of endpoint, in the order of how likely one of its kind is to work for a member somewhere else.
type rank struct {
	source netmap.Source
	addrs  []netip.AddrPort
	share  int // how many of these are among the first 12, where there are more than 12 in all
}

// Endpoints lists what to tell others, the likeliest to work first: advertised, the router's mapping, what STUN servers
// see, public interface addresses, what members see, private interface addresses. Where there are too many to be told,
// the first 12 have some of each kind: members in the same network have only the private ones.
//
// What members saw is believed from an admin, or while fewer than three are connected, else when two agree. Behind a
// NAT whose mapping depends on the destination, the outside address with the inside port is guessed too: somebody may
// have forwarded that port by hand.
func (o *Own) Endpoints() []netmap.Endpoint {
	o.mu.Lock()
	defer o.mu.Unlock()
	outside := o.outside()
	var confirmed, public, private, linkLocal []netip.AddrPort
	for _, a := range o.local {
		switch scopeOf(a.Addr()) {
		case scopeGlobal:
			if slices.Contains(outside, a) {
				confirmed = append(confirmed, a)
			} else {
				public = append(public, a)
			}
		case scopeSite:
			private = append(private, a)
		default:
			linkLocal = append(linkLocal, a)
		}
	}
	var mapped []netip.AddrPort
	if told(o.mapped) {
		mapped = append(mapped, o.mapped)
	}
	ranks := []rank{
		{netmap.SourceStatic, o.static, 3},
		{netmap.SourcePortmap, mapped, 1},
		{netmap.SourceSTUN, o.foreign(outside), 3},
		{netmap.SourceLocal, append(confirmed, public...), 1},
		{netmap.SourcePeer, o.foreign(o.believed()), 1},
		{netmap.SourceLocal, private, 2},
		{netmap.SourceLocal, linkLocal, 1},
	}
	all := gather(ranks, false)
	if len(all) > toldEndpoints {
		all = gather(ranks, true)
	}
	return all
}

// outside are the addresses that STUN servers saw, with the guess for a hard NAT. Called with mu held.
func (o *Own) outside() []netip.AddrPort {
	var all []netip.AddrPort
	for _, s := range o.stun {
		all = append(all, s.addr)
		guess := netip.AddrPortFrom(s.addr.Addr(), o.port)
		if o.hard && s.addr.Addr().Is4() && o.port != 0 && !slices.Contains(all, guess) {
			all = append(all, guess)
		}
	}
	return all
}

// foreign leaves out the node's interface addresses. Called with mu held.
func (o *Own) foreign(addrs []netip.AddrPort) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.AddrPort) bool { return slices.Contains(o.local, a) })
}

// gather lists the endpoints by rank, each once. With shares, what is beyond a kind's share comes after all shares.
func gather(ranks []rank, shares bool) []netmap.Endpoint {
	var first, rest []netmap.Endpoint
	known := make(map[netip.AddrPort]bool)
	for _, r := range ranks {
		n := 0
		for _, a := range r.addrs {
			a = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
			if known[a] {
				continue
			}
			known[a] = true
			n++
			e := netmap.Endpoint{Addr: a, Source: r.source}
			if shares && n > r.share {
				rest = append(rest, e)
			} else {
				first = append(first, e)
			}
		}
	}
	return append(first, rest...)
}
