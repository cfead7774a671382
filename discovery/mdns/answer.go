package mdns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// pending is an answer that waits: for others that answer too, and for further questions.
type pending struct {
	at    time.Time
	set   set            // 0: none
	asker netip.AddrPort // the zero AddrPort: several
}

// speech is what goes out by multicast together.
type speech struct {
	at  time.Time // the last time
	due pending
}

// queried takes a query: we answer what is asked about us, and need not ask what somebody else just has.
func (c *core) queried(now time.Time, f *face, d datagram, m *message) {
	known := m.records[:m.known]
	if c.asks() && d.group && m.asks() {
		c.askedByOther(now, f, d.from.Addr().WithZone(""), known)
	}
	if c.port == 0 {
		return
	}
	if d.from.Port() != mdnsPort {
		c.queriedByResolver(f, d, m)
		return
	}
	if len(m.questions) == 0 { // perhaps the rest of what an asker knows (RFC 6762 §7.2)
		if due := &f.said.due; due.asker == d.from {
			due.set = f.me.unknown(due.set, known)
		}
		return
	}
	var all, alone set // asked of everybody, and by an asker that wants an answer of its own
	for _, q := range m.questions {
		if q.unicast {
			alone |= f.me.asked(q)
		} else {
			all |= f.me.asked(q)
		}
	}
	all, alone = f.me.unknown(all, known), f.me.unknown(alone, known)
	if alone != 0 {
		// The others get it from time to time, too, so that they need not ask (RFC 6762 §5.4).
		if now.Sub(f.said.at) < ttl/4 && f.neighbour(d.from.Addr()) {
			c.out = append(c.out, packet{iface: &f.Interface, to: d.from, data: f.me.answer(alone)})
		} else {
			all |= alone
		}
	}
	f.said.answer(now, all&^setMeta, d.from, m.truncated)
	f.meta.answer(now, all&setMeta, d.from, m.truncated)
}

// queriedByResolver answers at once the first question that is about us, if the asker is certain to be on the link:
// anybody's address can stand there.
func (c *core) queriedByResolver(f *face, d datagram, m *message) {
	if !f.neighbour(d.from.Addr()) {
		c.count.offLink.Add(1)
		return
	}
	for _, q := range m.questions {
		if s := f.me.asked(q); s != 0 {
			c.out = append(c.out, packet{iface: &f.Interface, to: d.from, data: f.me.legacy(m.id, q, s)})
			return
		}
	}
}

// answer answers by multicast. Where others have answers too, ours waits for a random while, and where the asker has more
// to tell of what it knows, for that.
func (s *speech) answer(now time.Time, what set, asker netip.AddrPort, more bool) {
	if what == 0 {
		return
	}
	at := now
	if more {
		at = now.Add(400*time.Millisecond + rand.N(100*time.Millisecond))
	} else if what&setShared != 0 {
		at = now.Add(20*time.Millisecond + rand.N(100*time.Millisecond))
	}
	at = later(at, s.at.Add(multicastGap))
	if s.due.set == 0 {
		s.due = pending{at: at, set: what, asker: asker}
		return
	}
	if s.due.asker != asker {
		s.due.asker = netip.AddrPort{}
	}
	s.due.set |= what
	s.due.at = earlier(s.due.at, at)
}

// speak announces and answers what is due.
func (c *core) speak(now time.Time, f *face) {
	if c.port == 0 {
		f.said.due, f.meta.due = pending{}, pending{}
		return
	}
	if f.announce.due(now) {
		c.multicast(now, f, f.me.announcement())
		f.said = speech{at: now} // with all that was due
		f.announce.done(now, time.Hour)
	}
	for _, s := range []*speech{&f.said, &f.meta} {
		if s.due.set != 0 && !now.Before(s.due.at) {
			c.multicast(now, f, f.me.answer(s.due.set))
			*s = speech{at: now}
		}
	}
}

// defend looks at what is said in our name: we take another one when somebody else means something else by it, and set
// right a goodbye that we did not say, whoever's address it comes from (RFC 6762 §9, §10.1).
func (c *core) defend(now time.Time, f *face, m *message, from netip.Addr) {
	for _, rr := range m.records {
		h := rr.Header()
		ptr, shared := rr.(*dns.PTR)
		mine := h.Name == f.me.instance() || h.Name == f.me.host() || shared && ptr.Ptr == f.me.instance()
		switch {
		case !mine:
		case h.Ttl == 0:
			f.announceSoon(now)
		case !shared && !c.ours(from) && !f.me.says(rr):
			c.count.conflicts.Add(1)
			if c.renames.Take(now, renameRate, renameBurst) {
				c.multicast(now, f, f.me.goodbye())
				c.rename(now, f)
			}
			return
		}
	}
}

// says reports whether a record is one of ours, which somebody else may repeat.
func (o *own) says(rr dns.RR) bool {
	return slices.ContainsFunc(o.records(setAll, ttl), func(mine dns.RR) bool { return dns.IsDuplicate(rr, mine) })
}

// announceSoon announces once more, not at a time of its own if that is to be done anyway.
func (f *face) announceSoon(now time.Time) {
	at := later(now, f.said.at.Add(multicastGap))
	if f.announce.left == 0 {
		f.announce = schedule{at: at, gap: time.Second, left: 1}
	}
	f.announce.at = earlier(f.announce.at, at)
}
