package mdns

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// longestAskGap is how long we wait at most before we ask again, for ever (RFC 6762 §5.2).
const longestAskGap = time.Hour

// always is more often than anybody will ask.
const always = 1 << 40

// beginAsking asks as if it were the first time: now, then 1, 2, 4, … seconds after the time before.
func (f *face) beginAsking(now time.Time) {
	at := later(now.Add(20*time.Millisecond+rand.N(100*time.Millisecond)), f.asked.Add(multicastGap))
	if f.ask.left > 0 {
		at = earlier(f.ask.at, at)
	}
	f.ask = schedule{at: at, gap: time.Second, left: always}
}

// askSoon asks once, in between.
func (f *face) askSoon(now time.Time) {
	f.soon = earlier(f.soon, later(now, f.asked.Add(multicastGap)))
}

// query asks for all instances but those that are known.
func (c *core) query(now time.Time, f *face) {
	var known []knownAnswer
	for k, e := range c.heard {
		if k.iface == f.Index && e.known(now) {
			known = append(known, knownAnswer{k.label, e.expires.Sub(now)})
		}
	}
	slices.SortFunc(known, func(a, b knownAnswer) int { return cmp.Compare(a.label, b.label) })
	for _, data := range queries(known) {
		c.multicast(now, f, data)
	}
	f.wasAsked(now)
}

func (f *face) wasAsked(now time.Time) {
	if f.ask.due(now) {
		f.ask.done(now, longestAskGap)
	}
	f.asked, f.soon = now, time.Time{}
}

// askedByOther counts somebody's query as ours, if we were about to ask and its answers will tell us all that ours would
// (RFC 6762 §7.3). The asker does not answer itself, so it has to be known, too. Of a query in several parts the first
// one stands for all.
func (c *core) askedByOther(now time.Time, f *face, asker netip.Addr, known []dns.RR) {
	for _, rr := range known {
		ptr, ok := rr.(*dns.PTR)
		if !ok || ptr.Hdr.Name != serviceName {
			continue
		}
		label, _ := instanceOf(ptr.Ptr)
		if e := c.heard[key{f.Index, label}]; label != f.me.label && (e == nil || !e.known(now)) {
			return
		}
	}
	met := false
	for k, e := range c.heard {
		met = met || k.iface == f.Index && e.known(now) && e.from(asker)
	}
	if !met {
		return
	}
	if f.ask.left > 0 && f.ask.at.Sub(now) < f.ask.gap/4 {
		f.ask.at = now
		f.wasAsked(now)
	} else if !f.soon.IsZero() {
		f.wasAsked(now)
	}
}

// told takes a response.
func (c *core) told(now time.Time, f *face, d datagram, m *message) {
	if c.port != 0 {
		c.defend(now, f, m, d.from.Addr())
	}
	if !c.asks() {
		return
	}
	mine, from := c.labels(), d.from.Addr().WithZone("")
	for _, s := range m.sightings() {
		switch {
		case slices.Contains(mine, s.label):
		case s.gone:
			if e := c.heard[key{f.Index, s.label}]; e != nil && !e.farewell(now, from) {
				c.count.refused.Add(1)
			}
		case s.whole():
			c.saw(now, f, from, &s)
		}
	}
}

// saw takes an announcement.
func (c *core) saw(now time.Time, f *face, from netip.Addr, s *sighting) {
	if c.cfg.Known != nil && !c.cfg.Known(s.tag) {
		c.count.otherNetwork.Add(1)
		return
	}
	a := Announcement{Instance: s.label, Tag: s.tag, Interface: f.Name, Addrs: f.endpoints(s)}
	if len(a.Addrs) == 0 {
		c.count.refused.Add(1)
		return
	}
	verdict, evicted := c.heard.put(now, key{f.Index, s.label}, a, from, s.ttl)
	if evicted != nil {
		c.gone(evicted)
	}
	switch verdict {
	case fresh:
		c.news = append(c.news, a)
	case noRoom:
		c.count.full.Add(1)
	case notTheirs:
		c.count.refused.Add(1)
	}
}

// endpoints are the addresses of an announcement to believe, in a fixed order.
func (f *face) endpoints(s *sighting) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range s.addrs {
		if !f.believes(a) {
			continue
		}
		if a.Is6() && a.IsLinkLocalUnicast() {
			a = a.WithZone(f.Name)
		}
		all = append(all, netip.AddrPortFrom(a, s.port))
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// expire forgets those whose time is up, and asks for those whose is nearly.
func (c *core) expire(now time.Time) {
	for k, e := range c.heard {
		switch {
		case !now.Before(e.expires):
			delete(c.heard, k)
			c.gone(e)
		case !e.refresh.IsZero() && !now.Before(e.refresh):
			e.asked++
			e.plan()
			for _, f := range c.faces {
				if f.Index == k.iface {
					f.askSoon(now)
				}
			}
		}
	}
}

func (c *core) gone(e *entry) {
	a := e.Announcement
	a.Gone = true
	c.news = append(c.news, a)
}

// askNow asks again on all interfaces.
func (c *core) askNow(now time.Time) {
	for _, f := range c.faces {
		f.askSoon(now)
	}
}
