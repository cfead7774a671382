package portmap

import (
	"context"
	"crypto/rand"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// A router that gave nothing is left alone for a while, each time twice as long.
	firstPause, lastPause = 20 * time.Second, 10 * time.Minute
	// releaseLimit is how long giving a mapping back may take.
	releaseLimit = time.Second
	// announceGap is the least time between two announcements that are acted on.
	announceGap = 5 * time.Second
)

// Config is what a Mapper works with. Port is needed.
type Config struct {
	// Port is the own UDP socket's; 0: there is none at the moment.
	Port func() uint16
	// Gateways are the routers, the preferred first. nil: Gateways.
	Gateways func() []Gateway
	// Listen and Dial open sockets to the gateway. nil: as package net does.
	Listen func(network, addr string) (net.PacketConn, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	// Nonce is by what the router knows a PCP mapping's owner: who gives the same after a crash gets the mapping that
	// was left behind. Zero: random.
	Nonce [12]byte
	// Changed is told the outside address of each new mapping, and the zero AddrPort when there is none any more. It is
	// called by Run's goroutine. nil: nobody is told.
	Changed func(external netip.AddrPort)
	Logger  *slog.Logger // nil: discarded
}

// Mapper keeps one mapping of the own UDP port. Safe for concurrent use.
type Mapper struct {
	cfg  Config
	wake chan struct{} // the links changed, or the router restarted

	// Of Run's goroutine alone.
	lease   *lease // nil: none
	pcp     epoch
	pmp     epoch
	heardAt time.Time // when an announcement was last acted on
	misses  int       // attempts in a row that gave no mapping

	mu     sync.Mutex
	status Status
	stop   context.CancelFunc // ends what Run does at the moment; nil when it waits
	dirty  bool               // the links changed
}

// New makes a Mapper. Nothing is sent before Run.
func New(cfg Config) *Mapper {
	if cfg.Gateways == nil {
		cfg.Gateways = Gateways
	}
	if cfg.Listen == nil {
		cfg.Listen = net.ListenPacket
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Nonce == [12]byte{} {
		rand.Read(cfg.Nonce[:])
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Mapper{cfg: cfg, wake: make(chan struct{}, 1)}
}

// Status is what is known now. It does not wait for anything.
func (m *Mapper) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// LinkChanged has the gateway and the port looked at again: the links changed, or the socket did. A mapping that is
// still right stays.
func (m *Mapper) LinkChanged() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dirty = true
	if m.stop != nil {
		m.stop()
	}
	m.poke()
}

// poke wakes Run. Full: it is about to look anyway.
func (m *Mapper) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run keeps the mapping until ctx ends, gives it back, for which it takes a second at most, and returns ctx's error. It
// is called once.
func (m *Mapper) Run(ctx context.Context) error {
	heard := make(chan announcement, 4)
	var wg sync.WaitGroup
	defer wg.Wait()
	if pc, err := m.cfg.Listen("udp4", netip.AddrPortFrom(allHosts, announcePort).String()); err == nil {
		defer pc.Close()
		wg.Go(func() { hear(pc, heard) })
	} else {
		m.cfg.Logger.Debug("listen for announcements of routers", "err", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		force := false
		select {
		case <-ctx.Done():
			continue
		case <-m.wake:
		case <-timer.C:
		case a := <-heard:
			if force = m.restarted(a); !force {
				continue
			}
		}
		if next := m.work(ctx, force); next > 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
	}
	m.end(ctx)
	return ctx.Err()
}

// work does what there is to do, and returns how long nothing is; 0: until something changes.
func (m *Mapper) work(ctx context.Context, force bool) time.Duration {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	if m.dirty {
		m.misses = 0
	}
	m.stop, m.dirty = cancel, false
	m.mu.Unlock()
	next := m.keep(ctx, force)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stop = nil
	if m.dirty {
		return 0 // Run is woken already
	}
	return next
}

// keep makes sure of the mapping.
func (m *Mapper) keep(ctx context.Context, force bool) time.Duration {
	gws, port := m.cfg.Gateways(), m.cfg.Port()
	l := m.lease
	var wg sync.WaitGroup
	defer wg.Wait()
	if l != nil && (l.port != port || !slices.Contains(gws, l.gw)) {
		old := l
		l = nil
		m.adopt(nil)
		wg.Go(func() { m.giveBack(ctx, old) }) // the gateway may still be there
	}
	if len(gws) == 0 || port == 0 {
		m.set(func(s *Status) { *s = Status{} })
		return 0
	}
	now := time.Now()
	if l != nil && !force && now.Before(l.renew) {
		return l.renew.Sub(now)
	}
	if l != nil {
		fresh, err := m.again(ctx, l)
		if err == nil {
			m.adopt(fresh)
			return time.Until(fresh.renew)
		}
		m.cfg.Logger.Debug("renew port mapping", "err", err)
	}
	fresh := m.acquire(ctx, gws, port)
	switch {
	case fresh != nil:
		m.adopt(fresh)
		return time.Until(fresh.renew)
	case ctx.Err() != nil:
		return 0
	}
	pause := min(firstPause<<min(m.misses, 8), lastPause)
	m.misses++
	if l != nil && !force && time.Now().Before(l.expires) {
		return min(pause, max(time.Until(l.expires), time.Second))
	}
	m.adopt(nil)
	return pause + mrand.N(pause/10)
}

// adopt makes a lease the one that counts; nil: there is none.
func (m *Mapper) adopt(l *lease) {
	before := m.lease
	m.lease = l
	if l != nil {
		m.misses = 0
	}
	var external netip.AddrPort
	if l != nil {
		external = l.external
	}
	m.set(func(s *Status) {
		s.External, s.Protocol = external, ""
		if l != nil {
			s.Gateway, s.Protocol, s.Err = l.gw.Addr, l.protocol, ""
		}
	})
	if before == nil && l == nil || before != nil && l != nil && before.external == external {
		return
	}
	m.cfg.Logger.Debug("port mapping", "endpoint", external)
	if m.cfg.Changed != nil {
		m.cfg.Changed(external)
	}
}

// giveBack ends a mapping at the router, if that is still there.
func (m *Mapper) giveBack(ctx context.Context, l *lease) {
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	if err := m.release(ctx, l); err != nil {
		m.cfg.Logger.Debug("give port mapping back", "err", err)
	}
}

// end gives the mapping back when Run's ctx has ended.
func (m *Mapper) end(ctx context.Context) {
	if l := m.lease; l != nil {
		m.adopt(nil)
		m.giveBack(context.WithoutCancel(ctx), l)
	}
}

func (m *Mapper) set(change func(*Status)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.status)
}
