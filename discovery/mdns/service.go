package mdns

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	mdnsPort = 5353
	// lookGap is how often the interfaces, the port and the tag are looked at.
	lookGap = 10 * time.Second
	// backlog is how many datagrams wait for the loop; more are dropped.
	backlog = 256
	// goodbyeGap lies between the two goodbyes.
	goodbyeGap = 100 * time.Millisecond
)

// Config is what a Service works with. Tag or Found has to be there. Its functions are called by Run's goroutine, one at a
// time, and hold up all else while they run.
type Config struct {
	// Tag is the network's tag at a time; it changes with the hour. nil: nothing is announced.
	Tag func(now time.Time) [8]byte
	// Port is the own UDP port, which is announced; 0: there is none at the moment. Needed with Tag.
	Port func() uint16
	// Known reports whether a tag is one of the own network's now or was a moment ago. It is called for each announcement
	// that comes in. nil: the announcements of all networks are wanted.
	Known func(tag [8]byte) bool
	// Found is told each announcement when it is new, when its tag or addresses are, and when it is gone. nil: nobody is
	// looked for.
	Found func(Announcement)
	// Skip says which interfaces to leave alone, by name. nil: none.
	Skip func(iface string) bool
	// Interfaces are those to speak on. nil: Interfaces.
	Interfaces func() []Interface
	Logger     *slog.Logger // nil: discarded
}

// Announcement is what a host on the link says about itself. Whoever is on the link can say anything: the tag proves
// nothing, as all can read it, and the addresses have to prove themselves.
type Announcement struct {
	Instance  string // random, another one every hour; with Interface it names the announcement
	Interface string // that it came in by
	Tag       [8]byte
	// Addrs are where it can be reached, at least one: unicast addresses, each of the link, of a private or unique local
	// range, or link-local, with the own zone. Sorted. borrowed: not to be changed.
	Addrs []netip.AddrPort
	Gone  bool // it said goodbye, its life is over, or the interface is gone; all else is as it was told last
}

// Service announces and looks for members on the links of the host. Safe for concurrent use.
type Service struct {
	cfg    Config
	open   func(deliver func(datagram)) link
	in     chan datagram
	wake   chan struct{}
	look   atomic.Bool // Changed was called
	ask    atomic.Bool // Query was called
	labels atomic.Pointer[[]string]
	count  counters
}

// link is what the loop speaks by. It is for the loop's goroutine alone; what comes in is delivered from others, and only
// lent.
type link interface {
	join(ifaces []Interface) // speak on these from now on, and no others
	send(p packet) error
	close() // nothing is delivered any more when it returns
}

// New makes a Service. Nothing is opened or sent before Run. It fails when the Config gives it nothing to do.
func New(cfg Config) (*Service, error) {
	if cfg.Tag == nil && cfg.Found == nil {
		return nil, errors.New("mdns: nothing to announce and nobody to look for")
	}
	if cfg.Tag != nil && cfg.Port == nil {
		return nil, errors.New("mdns: no port to announce")
	}
	if cfg.Interfaces == nil {
		cfg.Interfaces = Interfaces
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, in: make(chan datagram, backlog), wake: make(chan struct{}, 1)}
	s.open = func(deliver func(datagram)) link { return newSockets(cfg.Logger, deliver) }
	s.labels.Store(new([]string))
	return s, nil
}

// Changed has the interfaces, the port and the tag looked at at once, and all announced and asked for as at the start: the
// links changed, or the socket or the network key did.
func (s *Service) Changed() {
	s.look.Store(true)
	s.poke()
}

// Query asks again who is there, on all interfaces, if that was not done in the last second; otherwise when it is over.
func (s *Service) Query() {
	s.ask.Store(true)
	s.poke()
}

// Counters are what was done so far.
func (s *Service) Counters() Counters { return s.count.snapshot() }

// poke wakes Run. Full: it is about to look anyway.
func (s *Service) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run speaks until ctx ends, says goodbye, which takes it 100 ms, and returns ctx's error. Interfaces, and sockets that
// cannot be opened, are tried again every ten seconds. It is called once.
func (s *Service) Run(ctx context.Context) error {
	l := s.open(s.deliver)
	defer l.close()
	c := newCore(&s.cfg, &s.count)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var looked time.Time
	for ctx.Err() == nil {
		now := time.Now()
		again := s.look.Swap(false)
		if again || now.Sub(looked) >= lookGap {
			looked = now
			ifaces := chosen(s.cfg.Interfaces(), s.cfg.Skip)
			l.join(ifaces)
			c.look(now, ifaces, again)
		}
		if s.ask.Swap(false) {
			c.askNow(now)
		}
		c.tick(now)
		s.publish(l, c)
		timer.Reset(earlier(looked.Add(lookGap), c.next()).Sub(now))
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		case d := <-s.in:
			c.handle(time.Now(), d)
		}
	}
	s.end(l, c)
	return ctx.Err()
}

// publish sends and tells what core left to be.
func (s *Service) publish(l link, c *core) {
	labels := c.labels()
	s.labels.Store(&labels) // before the others can answer
	for _, p := range c.out {
		if err := l.send(p); err != nil {
			s.count.sendErrors.Add(1)
		} else {
			s.count.sent.Add(1)
		}
	}
	for _, a := range c.news {
		s.cfg.Logger.Debug("announced on the link", "endpoint", a.Addrs[0], "gone", a.Gone)
		s.cfg.Found(a)
	}
	clear(c.out)
	clear(c.news)
	c.out, c.news = c.out[:0], c.news[:0]
}

// end says goodbye, twice since datagrams get lost.
func (s *Service) end(l link, c *core) {
	c.news = nil
	c.goodbye(time.Now())
	s.publish(l, c)
	if c.port == 0 {
		return
	}
	time.Sleep(goodbyeGap)
	c.goodbye(time.Now())
	s.publish(l, c)
}

// deliver takes a datagram from a reader of a socket. borrowed: d.data.
func (s *Service) deliver(d datagram) {
	if !related(d.data, *s.labels.Load()) {
		s.count.unrelated.Add(1)
		return
	}
	d.data = bytes.Clone(d.data)
	select {
	case s.in <- d:
	default:
		s.count.overflow.Add(1)
	}
}
