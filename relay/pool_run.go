package relay

import (
	"context"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// dialTime is how long an attempt may take, whatever dials.
const dialTime = connectTimeout + 2*time.Second

// link is one connection to a server, from its dialling on. Owned by its goroutine.
type link struct {
	pool   *Pool
	server *server
	cancel context.CancelFunc
}

// Run keeps the connections until ctx ends, and returns after they have. The error is that of ctx.
//
//	SetServers, Send, a connection that comes or goes ─▶ kick ─▶ roster.plan ─▶ dial, close, ping, tell
func (p *Pool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := p.step(time.Now(), func(s *server) {
			linkCtx, cancel := context.WithCancel(ctx)
			l := &link{pool: p, server: s, cancel: cancel}
			p.attempted(s, l)
			wg.Go(func() {
				defer cancel()
				l.run(linkCtx)
			})
		})
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
		select {
		case <-p.kick:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// step plans once and does it. It returns when to do so again at the latest; zero: when kicked.
func (p *Pool) step(now time.Time, dial func(*server)) time.Time {
	p.mu.Lock()
	var pings []*Client
	turned := p.observe(now, &pings)
	plan := p.roster.plan(now)
	for _, s := range plan.ping {
		if client := s.client.Load(); client != nil {
			pings = append(pings, client)
		}
	}
	var ending []*link
	for _, s := range plan.close {
		ending = append(ending, p.detach(now, s))
		p.roster.tell(PoolEvent{Kind: Lost, URL: s.text})
	}
	for _, s := range p.roster.servers {
		if s.renew {
			s.renew = false
			plan.dial = append(plan.dial, s)
		}
	}
	events := p.roster.events
	p.roster.events = nil
	p.mu.Unlock()

	if turned || len(ending) > 0 || len(plan.resend) > 0 {
		p.generation.Add(1)
	}
	for _, client := range pings {
		client.Ping()
	}
	for _, l := range ending {
		l.cancel()
	}
	for _, s := range plan.dial {
		dial(s)
	}
	p.resend(plan.resend)
	for _, e := range events {
		p.report(e)
	}
	return plan.next
}

// attempted notes which connection is being made.
func (p *Pool) attempted(s *server, l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.attempt = l
}

// observe takes what the connections know into the roster. It reports whether a doubt began or ended.
func (p *Pool) observe(now time.Time, pings *[]*Client) (turned bool) {
	for _, s := range p.roster.servers {
		client := s.client.Load()
		if client == nil {
			continue
		}
		ping, t := s.observe(now, p.began.Add(time.Duration(s.sent.Load())), client.Heard(), client.RTT())
		if ping {
			*pings = append(*pings, client)
		}
		turned = turned || t
	}
	return turned
}

// report logs an event and hands it on.
func (p *Pool) report(e PoolEvent) {
	switch e.Kind {
	case HomesChanged:
		p.log.Info("homes changed", "relays", e.Homes)
	case Unwell:
		p.log.Warn("relay says", "relay", e.URL, "text", e.Text)
	case Refused:
		p.log.Warn("relay refused", "relay", e.URL, "err", e.Err)
	default:
		p.log.Debug("relay "+e.Kind.String(), "relay", e.URL, "err", e.Err)
	}
	p.cfg.Events(e)
}

// run makes the connection and lives as long as it.
func (l *link) run(ctx context.Context) {
	p := l.pool
	client, err := l.connect(ctx)
	if err != nil {
		p.count.openFail.Add(1)
		p.failed(l, err)
		return
	}
	p.count.openOK.Add(1)
	p.connected(l, client)
	err = client.Run(ctx)
	p.ended(l, client, err)
}

func (l *link) connect(ctx context.Context) (*Client, error) {
	p := l.pool
	dialCtx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	stream, err := p.cfg.Dial(dialCtx, l.server.url)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	home := p.roster.isHome(l.server)
	p.mu.Unlock()
	return NewClient(ctx, stream, ClientConfig{
		Logger: p.log.With("relay", l.server.text), Identity: p.cfg.Identity, Pass: p.cfg.Pass, Home: home,
		Deliver: l.deliver, Gone: l.gone, Restarting: l.restarting, Health: l.health,
	})
}

// deliver notes by which server the senders were heard, and hands on.
func (l *link) deliver(batch []datagram.Relayed, done func()) {
	p := l.pool
	now := int64(time.Since(p.began))
	l.server.used.Store(now)
	for i := range batch {
		if i > 0 && batch[i].From == batch[i-1].From {
			continue
		}
		peer := p.peer(batch[i].From)
		peer.heardAt.Store(now)
		if peer.heard.Load() != l.server {
			p.heard(peer, l.server)
		}
	}
	if p.cfg.Deliver == nil {
		done()
		return
	}
	p.cfg.Deliver(batch, done)
}

// heard notes that a peer is on a server, or back.
func (p *Pool) heard(peer *peer, s *server) {
	p.mu.Lock()
	peer.isBack(s)
	p.mu.Unlock()
	peer.heard.Store(s)
	peer.choice.Store(nil)
}

// gone has another server used for a peer.
func (l *link) gone(id identity.PeerID, reason Reason) {
	if reason == GoneReplaced {
		return // by another connection of the same node: it is still there
	}
	p := l.pool
	peer := p.peer(id)
	peer.heard.CompareAndSwap(l.server, nil)
	p.mu.Lock()
	peer.wasGone(time.Now(), l.server)
	p.mu.Unlock()
	peer.choice.Store(nil)
	p.count.gone.Add(1)
}

func (l *link) restarting(in, try time.Duration) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.server.link == l {
		l.server.restarting(time.Now(), in, try)
	}
}

// health tells what the server says. A connection that another of our own is about to replace hears of that, which is
// nobody's business.
func (l *link) health(text string) {
	p := l.pool
	p.mu.Lock()
	if s := l.server; s.link == l && s.attempt == nil && s.health != text {
		s.health = text
		p.roster.tell(PoolEvent{Kind: Unwell, URL: s.text, Text: text})
	}
	p.mu.Unlock()
	p.wake()
}

// connected takes a connection into use, in place of the one before, and sends what waited for it.
func (p *Pool) connected(l *link, client *Client) {
	now := time.Now()
	s := l.server
	p.mu.Lock()
	before := s.link
	if before != nil {
		p.detach(now, s)
	} else {
		p.roster.tell(PoolEvent{Kind: Connected, URL: s.text})
	}
	s.link = l
	if s.attempt == l {
		s.attempt = nil
	}
	s.connected(now)
	s.client.Store(client)
	var parcels []parcel
	for _, waits := range p.roster.servers { // some may have waited elsewhere for want of a better one
		fresh, old := waits.unpark(now)
		parcels = append(parcels, fresh...)
		p.count.waited.Add(uint64(old))
	}
	p.mu.Unlock()
	p.changed()
	if before != nil {
		before.cancel()
	}
	p.resend(parcels)
}

// detach takes the connection of a server out of use. Guarded by mu.
func (p *Pool) detach(now time.Time, s *server) *link {
	l := s.link
	count := s.client.Load().Counters()
	s.tx += count["sent_bytes"]
	s.rx += count["received_bytes"]
	s.link, s.health = nil, ""
	s.client.Store(nil)
	s.phase, s.since = idle, now
	return l
}

// ended notes that a connection is over, unless another took its place.
func (p *Pool) ended(l *link, client *Client, err error) {
	now := time.Now()
	p.mu.Lock()
	if l.server.link != l {
		p.mu.Unlock()
		return
	}
	p.detach(now, l.server)
	l.server.ended(now, err, p.roster.rand())
	p.roster.tell(PoolEvent{Kind: Lost, URL: l.server.text, Err: err})
	p.mu.Unlock()
	p.changed()
}

// failed notes that a server could not be connected to. What waits for it goes by another.
func (p *Pool) failed(l *link, err error) {
	now := time.Now()
	s := l.server
	p.mu.Lock()
	if s.attempt == l {
		s.attempt = nil
	}
	// The connection that should be replaced still works, or does not know better; or another attempt is under way.
	if s.link != nil || s.attempt != nil {
		p.mu.Unlock()
		return
	}
	before := s.err
	s.ended(now, err, p.roster.rand())
	if isRefusal(err) && (before == nil || before.Error() != err.Error()) {
		p.roster.tell(PoolEvent{Kind: Refused, URL: s.text, Err: err})
	}
	parcels, old := s.unpark(now)
	p.mu.Unlock()
	p.log.Debug("relay not reached", "relay", s.text, "err", err)
	p.count.waited.Add(uint64(old))
	p.changed()
	p.resend(parcels)
}
