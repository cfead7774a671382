package mdns

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/internal/bucket"
)

const (
	// multicastGap is the least time between two sends of the same records on one interface (RFC 6762 §6).
	multicastGap = time.Second
	// What comes in about the service, above this, is dropped: messages a second, and at once, as when a hundred hosts start
	// together.
	budgetRate, budgetBurst = 200, 1000
	// Somebody who contradicts us makes us choose another name no more often than this.
	renameRate, renameBurst = 0.1, 3
	// announcements is how often we announce unasked, one second after the other at first, then twice as long each time.
	announcements = 3
	hour          = 3600 // seconds
)

// datagram is what came in. data is only valid during the call it comes with.
type datagram struct {
	iface int // index; 0: the system does not tell
	from  netip.AddrPort
	group bool // it was sent to the group, so it comes from the link
	data  []byte
}

// packet is what goes out by an interface.
type packet struct {
	iface *Interface
	to    netip.AddrPort // the zero AddrPort: the groups of the families that the interface has
	data  []byte
}

// core is all that has neither socket nor clock. Owned by the loop, which sends out and tells news, and empties both.
type core struct {
	cfg   *Config
	count *counters
	faces []*face
	heard cache

	port uint16 // 0: nothing is announced
	tag  [8]byte
	hour int64 // of Unix time, when the names were made

	budget, renames bucket.Bucket
	echoes          [64]echo // a ring
	echo            int
	out             []packet
	news            []Announcement
}

// face is what is going on on one interface.
type face struct {
	Interface
	me  own
	was string // the label before; what of it still comes back is ours

	announce schedule
	said     speech // all but the following
	meta     speech // that the service is there

	ask   schedule
	asked time.Time
	soon  time.Time // ask also then; zero: no
}

// schedule is a time that comes again and again, each time twice as long after the one before.
type schedule struct {
	at   time.Time
	gap  time.Duration
	left int // times
}

func (s *schedule) due(now time.Time) bool { return s.left > 0 && !now.Before(s.at) }

func (s *schedule) done(now time.Time, longest time.Duration) {
	s.at, s.gap, s.left = now.Add(s.gap), min(2*s.gap, longest), s.left-1
}

func newCore(cfg *Config, count *counters) *core {
	return &core{cfg: cfg, count: count, heard: make(cache)}
}

func (c *core) asks() bool { return c.cfg.Found != nil }

// labels are the names that are ours.
func (c *core) labels() []string {
	var all []string
	for _, f := range c.faces {
		all = append(all, f.me.label)
		if f.was != "" {
			all = append(all, f.was)
		}
	}
	return all
}

// look takes what interfaces there are, and what the configuration says now. again: announce and ask as if all were new.
func (c *core) look(now time.Time, ifaces []Interface, again bool) {
	var tag [8]byte
	var port uint16
	if c.cfg.Tag != nil {
		tag, port = c.cfg.Tag(now), c.cfg.Port()
	}
	if port == 0 && c.port != 0 {
		c.goodbye(now)
	}
	moved := port != c.port
	renew := tag != c.tag || now.Unix()/hour != c.hour
	if renew && c.port != 0 && port != 0 {
		c.goodbye(now) // in the name and with the tag of before
	}
	c.port, c.tag = port, tag
	if renew {
		c.hour = now.Unix() / hour
	}
	before := c.faces
	c.faces = nil
	for _, iface := range ifaces {
		i := slices.IndexFunc(before, func(f *face) bool { return f.Index == iface.Index && f.Name == iface.Name })
		if i < 0 {
			c.faces = append(c.faces, c.newFace(now, iface))
			continue
		}
		f := before[i]
		before = slices.Delete(before, i, i+1)
		c.faces = append(c.faces, f)
		c.update(now, f, iface, renew)
		if moved || again {
			f.begin(now)
		}
		if again {
			f.beginAsking(now)
		}
	}
	for _, f := range before {
		c.lost(f)
	}
}

func (c *core) newFace(now time.Time, iface Interface) *face {
	f := &face{Interface: iface}
	c.rename(now, f)
	f.beginAsking(now)
	return f
}

// update takes what the interface's addresses are now. Whoever lost one may be on another link, where the name must not
// be seen again.
func (c *core) update(now time.Time, f *face, iface Interface, renew bool) {
	same := slices.Equal(f.Addrs, iface.Addrs)
	lost := slices.ContainsFunc(f.Addrs, func(p netip.Prefix) bool { return !iface.owns(p.Addr()) })
	if lost && !renew && c.port != 0 {
		c.multicast(now, f, f.me.goodbye())
	}
	f.Interface = iface
	switch {
	case renew || lost:
		c.rename(now, f)
	case !same:
		f.me.addrs = ownAddrs(iface)
		f.begin(now)
	}
	if !same {
		f.beginAsking(now)
	}
	f.me.port, f.me.tag = c.port, c.tag
}

// rename gives an interface a new name, to be announced. Goodbye to the old one has been said.
func (c *core) rename(now time.Time, f *face) {
	f.was = f.me.label
	f.me = own{label: newLabel(), port: c.port, tag: c.tag, addrs: ownAddrs(f.Interface)}
	f.said = speech{} // in that name
	f.begin(now)
}

// ownAddrs are the addresses to announce, of too many not the link-local ones left out: we send from them.
func ownAddrs(i Interface) []netip.Addr {
	var local, all []netip.Addr
	for _, p := range i.Addrs {
		if p.Addr().IsLinkLocalUnicast() {
			local = append(local, p.Addr())
		} else {
			all = append(all, p.Addr())
		}
	}
	local = local[:min(len(local), maxAddrs)]
	return append(all[:min(len(all), maxAddrs-len(local))], local...)
}

// begin announces as if it were the first time, but no sooner after the last time than others may be bothered.
func (f *face) begin(now time.Time) {
	at := later(now.Add(rand.N(250*time.Millisecond)), f.said.at.Add(multicastGap))
	if f.announce.left > 0 {
		at = earlier(f.announce.at, at)
	}
	f.announce = schedule{at: at, gap: time.Second, left: announcements}
}

// lost forgets what was heard by an interface that is gone.
func (c *core) lost(f *face) {
	for k, e := range c.heard {
		if k.iface == f.Index {
			delete(c.heard, k)
			c.gone(e)
		}
	}
}

// handle takes a datagram.
func (c *core) handle(now time.Time, d datagram) {
	f := c.face(d)
	if f == nil || !f.accepts(d) {
		c.count.offLink.Add(1)
		return
	}
	if c.isEcho(now, d) {
		return
	}
	if !c.budget.Take(now, budgetRate, budgetBurst) {
		c.count.overBudget.Add(1)
		return
	}
	m, err := readMessage(d.data)
	if err != nil {
		c.count.malformed.Add(1)
		return
	}
	if !m.response {
		c.queried(now, f, d, m)
	} else if d.from.Port() == mdnsPort { // RFC 6762 §6
		c.told(now, f, d, m)
	}
}

// face is the interface that a datagram came in by. Where the system does not tell, it is the one with the sender's
// subnet.
func (c *core) face(d datagram) *face {
	from := d.from.Addr()
	for _, f := range c.faces {
		switch {
		case d.iface != 0:
			if f.Index == d.iface {
				return f
			}
		case from.Zone() != "":
			if f.Name == from.Zone() {
				return f
			}
		case f.neighbour(from):
			return f
		}
	}
	return nil
}

// accepts reports whether a datagram's sender can be on the link. What the group got was sent there, but a sender's
// address can be anything; it is one to send to, or the datagram is of no use.
func (f *face) accepts(d datagram) bool {
	from := d.from.Addr()
	if d.group {
		return f.believes(from)
	}
	return unicast(from) && f.neighbour(from)
}

// ours reports whether an address is this host's own, on whichever interface.
func (c *core) ours(addr netip.Addr) bool {
	return slices.ContainsFunc(c.faces, func(f *face) bool { return f.owns(addr) })
}

// tick does what is due.
func (c *core) tick(now time.Time) {
	c.expire(now)
	for _, f := range c.faces {
		c.speak(now, f)
		if c.asks() && (f.ask.due(now) || !f.soon.IsZero() && !now.Before(f.soon)) {
			c.query(now, f)
		}
	}
}

// next is when tick has something to do; the zero Time: never.
func (c *core) next() time.Time {
	first := c.heard.next(c.asks())
	for _, f := range c.faces {
		if c.port != 0 && f.announce.left > 0 {
			first = earlier(first, f.announce.at)
		}
		for _, s := range []*speech{&f.said, &f.meta} {
			if s.due.set != 0 {
				first = earlier(first, s.due.at)
			}
		}
		if c.asks() {
			first = earlier(earlier(first, f.ask.at), f.soon)
		}
	}
	return first
}

// goodbye withdraws what is announced, everywhere.
func (c *core) goodbye(now time.Time) {
	if c.port == 0 {
		return
	}
	for _, f := range c.faces {
		c.multicast(now, f, f.me.goodbye())
	}
}

func (c *core) multicast(now time.Time, f *face, data []byte) {
	c.out = append(c.out, packet{iface: &f.Interface, data: data})
	c.echoes[c.echo%len(c.echoes)] = echo{data, now}
	c.echo++
}

// echo is what we sent, which comes back to us. The address does not tell it from what others on this host send.
type echo struct {
	data []byte
	at   time.Time
}

func (c *core) isEcho(now time.Time, d datagram) bool {
	const soon = 250 * time.Millisecond
	return c.ours(d.from.Addr()) && slices.ContainsFunc(c.echoes[:], func(e echo) bool {
		return now.Sub(e.at) < soon && bytes.Equal(e.data, d.data)
	})
}

// related reports whether a datagram is worth a look: it names the service, asks for all services, or names one of ours.
// That is most of what there is to be done about the multicast DNS of others.
func related(data []byte, labels []string) bool {
	for i := 0; i+1 < len(data); {
		at := bytes.IndexByte(data[i:], '_')
		if at < 0 {
			break
		}
		i += at + 1
		if labelAt(data[i:], "meshnet") || labelAt(data[i:], "dns-sd") {
			return true
		}
	}
	for _, l := range labels {
		if bytes.Contains(data, []byte(l)) {
			return true
		}
	}
	return false
}

// labelAt reports whether data begins with a label's rest, in whatever case.
func labelAt(data []byte, rest string) bool {
	return len(data) >= len(rest) && bytes.EqualFold(data[:len(rest)], []byte(rest))
}
