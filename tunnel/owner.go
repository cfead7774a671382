package tunnel

import (
	"container/heap"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// engine is what carries packets of installed peers: today the wireguard module's device.
type engine interface {
	configure(*PeerSession) error
	setPSK(identity.WGKey, identity.Secret) error
	remove(identity.WGKey)
	initiate(identity.WGKey)
	sample() (map[identity.WGKey]sample, error)
}

// sample is what the engine tells about a peer since it was added.
type sample struct {
	handshake time.Time // zero: none yet
	rx, tx    uint64
}

const (
	sampleTrying = time.Second      // while some peer has no session yet
	sampleQuiet  = 10 * time.Second // otherwise
	// idleTimeout is WireGuard's RejectAfterTime: a session that old carries nothing any more.
	idleTimeout = 180 * time.Second
	// tryGap keeps initiations apart: their timestamps are whitened to 16.7 ms, and an equal one is a replay.
	tryGap = 25 * time.Millisecond
	// retryGap is the least time for an answer before the next try of a series.
	retryGap = 200 * time.Millisecond
)

// otherSide is how long the other side has for its initiations before ours are repeated too.
const otherSide = 600 * time.Millisecond

// handshakeOffsets are the times of a handshake's initiations, from its start.
var handshakeOffsets = [...]time.Duration{
	0, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
}

// owner configures the engine. Owned by Run's loop: each method takes now and acts at once; tick does what is due.
type owner struct {
	engine   engine
	lot      *lot
	lookup   func(identity.PeerID) *peer
	counters *counters
	log      *slog.Logger
	publish  func(map[identity.PeerID]PeerStats)
	clock    func() time.Time
	answers  func(identity.PeerID) bool // Config.Answering

	sessions   map[identity.PeerID]*session
	retries    deadlines
	nextSample time.Time // zero: nothing to sample
}

// session is a member contact was made with. It stays, for Stats and Reset, when the peer leaves the device.
type session struct {
	peer      *peer
	cfg       PeerSession
	defaulted bool // AllowedIPs are the member's addresses
	installed bool
	settled   bool // a handshake completed since it was installed
	since     time.Time
	stats     PeerStats
	before    sample // what earlier stays in the device counted

	// The handshake under way, if any.
	trying  bool
	series  int // its number
	started time.Time
	step    int
	nextTry time.Time // of the series
	lastTry time.Time
	ownTry  time.Time // packets were released without a session; zero: not since it was installed
	expired time.Time // sessions from before are over
}

func (o *owner) install(p PeerSession) {
	now := o.clock()
	entry := o.lookup(p.ID)
	if entry == nil {
		o.counters.add(unknownMember)
		return
	}
	s := o.sessions[p.ID]
	if s != nil && (s.cfg.WG != p.WG || s.peer != entry) {
		o.uninstall(s)
		s = nil
	}
	if s == nil {
		s = &session{peer: entry}
		o.sessions[p.ID] = s
	}
	defaulted := len(p.AllowedIPs) == 0
	if defaulted {
		p.AllowedIPs = hostPrefixes(entry.member.Load().IPs)
	}
	if !o.put(s, p, now) {
		return
	}
	s.defaulted = defaulted
	if o.lot.release(entry, now) > 0 {
		s.ownTry = now // packets without a session make the device initiate by itself
	}
	switch {
	case p.Initiate && s.ownTry.IsZero():
		o.startHandshake(s, now, now)
	case p.Initiate:
		o.startHandshake(s, now, later(now, s.ownTry.Add(handshakeOffsets[1])))
	case s.ownTry.Equal(now):
		o.startHandshake(s, now, now.Add(otherSide))
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// put brings p into the engine, touching no more than differs.
func (o *owner) put(s *session, p PeerSession, now time.Time) bool {
	var err error
	switch {
	case !s.installed, !slices.Equal(s.cfg.AllowedIPs, p.AllowedIPs):
		err = o.engine.configure(&p)
	case s.cfg.PSK != p.PSK:
		err = o.engine.setPSK(p.WG, p.PSK)
	}
	if err != nil {
		o.refused(p.ID, err)
		return false
	}
	s.cfg = p
	if !s.installed {
		s.installed, s.settled, s.since = true, false, now
		o.sampleBy(now.Add(sampleTrying))
	}
	return true
}

func (o *owner) refused(id identity.PeerID, err error) {
	o.counters.add(deviceConfig)
	o.log.Warn("peer not configured", "peer", id.Short(), "err", err)
}

func hostPrefixes(ips []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, len(ips))
	for i, ip := range ips {
		out[i] = netip.PrefixFrom(ip, ip.BitLen())
	}
	return out
}

func (o *owner) reset(id identity.PeerID) {
	s := o.sessions[id]
	if s == nil {
		return
	}
	again := s.cfg
	again.Initiate = true // the other side may believe in the old session and would not
	if s.defaulted {
		again.AllowedIPs = nil
	}
	o.refresh(o.clock()) // the engine forgets the counters with the peer
	o.uninstall(s)
	o.install(again)
}

// uninstall takes the peer out of the engine; what it has not sent waits in the lot.
func (o *owner) uninstall(s *session) {
	s.trying = false
	if !s.installed {
		return
	}
	o.lot.hold(s.peer)
	o.engine.remove(s.cfg.WG)
	s.installed, s.settled = false, false
	s.ownTry, s.expired = time.Time{}, time.Time{}
	s.stats.Installed = false
	s.before.rx, s.before.tx = s.stats.RxBytes, s.stats.TxBytes
}

func (o *owner) remove(id identity.PeerID) {
	if s := o.sessions[id]; s != nil {
		o.uninstall(s)
		delete(o.sessions, id)
	}
	o.lot.forget(id)
}

func (o *owner) setPSK(id identity.PeerID, psk identity.Secret) {
	s := o.sessions[id]
	if s == nil || s.cfg.PSK == psk {
		return
	}
	if s.installed {
		if err := o.engine.setPSK(s.cfg.WG, psk); err != nil {
			o.refused(id, err)
			return
		}
	}
	s.cfg.PSK = psk
}

// memberChanged follows a member's new addresses; with a new WireGuard key it is a new contact.
func (o *owner) memberChanged(id identity.PeerID) {
	s, entry := o.sessions[id], o.lookup(id)
	if s == nil || entry == nil {
		return
	}
	m := entry.member.Load()
	if m.WG != s.cfg.WG {
		o.uninstall(s)
		delete(o.sessions, id)
		return
	}
	if !s.defaulted {
		return
	}
	next := s.cfg
	next.AllowedIPs = hostPrefixes(m.IPs)
	if s.installed {
		o.put(s, next, o.clock())
		return
	}
	s.cfg = next
}

// startHandshake begins a series of initiations at a time, unless one has begun or will sooner, or there is a session.
func (o *owner) startHandshake(s *session, now, at time.Time) {
	at = later(at, s.lastTry.Add(tryGap))
	if s.trying && (s.step > 0 || !s.nextTry.After(at)) {
		return
	}
	s.trying, s.started, s.nextTry, s.step = true, at, at, 0
	s.series++
	if at.After(now) {
		heap.Push(&o.retries, deadline{at, s, s.series})
		return
	}
	if s.settled || now != s.since { // it may have one
		o.refresh(now)
	}
	o.try(s, now)
}

// try sends the next initiation of a series and schedules the one after it.
func (o *owner) try(s *session, now time.Time) {
	if o.live(s, now) {
		s.trying = false
		return
	}
	if o.answers(s.cfg.ID) {
		s.nextTry = now.Add(handshakeOffsets[1])
		heap.Push(&o.retries, deadline{s.nextTry, s, s.series})
		return
	}
	o.engine.initiate(s.cfg.WG)
	s.lastTry = now
	s.expired = o.clock() // a handshake that completed before is over: initiate ended its session
	s.step++
	if s.step == len(handshakeOffsets) {
		s.trying = false // the device's own retries go on while packets wait
		return
	}
	s.nextTry = later(now.Add(retryGap), s.started.Add(handshakeOffsets[s.step])) // a late try delays the next
	heap.Push(&o.retries, deadline{s.nextTry, s, s.series})
}

// live tells whether the session can carry packets, by the last sample.
func (o *owner) live(s *session, now time.Time) bool {
	return s.settled && now.Sub(s.stats.LastHandshake) < idleTimeout && s.stats.LastHandshake.After(s.expired)
}

// tick does what is due and returns when it wants to be called again; zero means never.
func (o *owner) tick() time.Time {
	now := o.clock()
	sampled := false
	for len(o.retries) > 0 && !o.retries[0].when.After(now) {
		d := heap.Pop(&o.retries).(deadline)
		if !d.session.trying || d.series != d.session.series {
			continue // of a series that ended
		}
		if !sampled {
			o.refresh(now)
			sampled = true
		}
		o.try(d.session, now)
	}
	if !o.nextSample.IsZero() && !o.nextSample.After(now) {
		o.nextSample = time.Time{}
		o.refresh(now)
		o.leaveIdle(now)
	}
	next := o.nextSample
	if len(o.retries) > 0 && (next.IsZero() || o.retries[0].when.Before(next)) {
		next = o.retries[0].when
	}
	return next
}

func (o *owner) sampleBy(at time.Time) {
	if o.nextSample.IsZero() || at.Before(o.nextSample) {
		o.nextSample = at
	}
}

// refresh reads the engine's counters and publishes them.
func (o *owner) refresh(now time.Time) {
	samples, err := o.engine.sample()
	if err != nil {
		o.counters.add(deviceConfig)
		o.log.Warn("peers not sampled", "err", err)
	}
	stats := make(map[identity.PeerID]PeerStats, len(o.sessions))
	for id, s := range o.sessions {
		if got, ok := samples[s.cfg.WG]; ok && s.installed {
			o.observe(s, got, now)
		}
		stats[id] = s.stats
		if s.installed {
			wait := sampleQuiet
			if !s.settled {
				wait = sampleTrying
			}
			o.sampleBy(now.Add(wait))
		}
	}
	o.publish(stats)
}

func (o *owner) observe(s *session, got sample, now time.Time) {
	st := &s.stats
	st.Installed = true
	if rx := s.before.rx + got.rx; rx > st.RxBytes {
		st.RxBytes, st.LastReceive = rx, now
	}
	st.TxBytes = s.before.tx + got.tx
	if got.handshake.IsZero() {
		return
	}
	st.LastHandshake = got.handshake
	if !s.settled {
		s.settled = true
		o.lot.settle(s.peer)
	}
}

// leaveIdle takes peers out whose session is over and that have been silent.
func (o *owner) leaveIdle(now time.Time) {
	left := false
	for _, s := range o.sessions {
		last := s.since
		for _, t := range []time.Time{s.stats.LastHandshake, s.stats.LastReceive} {
			if t.After(last) {
				last = t
			}
		}
		if s.installed && now.Sub(last) >= idleTimeout {
			o.uninstall(s)
			left = true
		}
	}
	if left {
		o.refresh(now)
	}
}

// deadline is one due initiation of a series.
type deadline struct {
	when    time.Time
	session *session
	series  int
}

// deadlines is a heap, the earliest first.
type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].when.Before(d[j].when) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}
