package discovery

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/discovery/portmap"
	"github.com/meshnet/meshnet/netmap"
)

const (
	// A NAT forgets a silent mapping after 30 s at the soonest: asking again within that keeps it.
	restunMin, restunMax = 20 * time.Second, 26 * time.Second
	// restunIdle is the longest pause while no server answers.
	restunIdle = time.Minute
	// checkLimit is how long Check takes at most.
	checkLimit = 5 * time.Second
	// fewServers are asked again and again, the rest only by full reports.
	fewServers = 3
)

// Config is what a Reporter works with. Send, Servers and Local are needed.
type Config struct {
	// Send sends a datagram by the node's own UDP socket, whose STUN messages go to HandleSTUN. borrowed: pkt is only
	// used during the call. It must not call the Reporter.
	Send func(to netip.AddrPort, pkt []byte)
	// Open opens a temporary UDP socket on a free port. nil: filtering and hairpin stay unknown.
	Open func() (net.PacketConn, error)
	// Servers are the STUN servers, as "host:port": those of relays and those of the user, the best ones first. The
	// first 8 count.
	Servers func() []string
	// Local are the own socket's addresses.
	Local func() []netip.AddrPort
	// Active reports whether the outside address is needed: there is a NAT and something in use. Asked every 20–26 s.
	// nil: never.
	Active func() bool
	// Heard reports whether some member answers by UDP, without a relay. nil: not known.
	Heard func() bool
	// PortMap goes into reports. nil: left out.
	PortMap func() portmap.Status
	// Found is told of each report, by Run's goroutine. nil: nobody is.
	Found func(Report)
	// Early is told, by Run's goroutine, of news that a full round has found before its end. nil: nobody is.
	Early  func(Report)
	Logger *slog.Logger // nil: discarded
}

// Counters are totals of a Reporter: packets sent, and STUN messages by what became of them.
type Counters struct {
	Sent, Taken, Unknown, Spoofed, Malformed, Late uint64
}

// Reporter finds out, and keeps knowing, where the node's socket is seen from outside. Safe for concurrent use.
//
//	start, LinkChanged, Check ──▶ full round: every server, all of Behaviour's tests
//	each 20–26 s while Active ──▶ light round: the nearest servers again, which also keeps the mapping alive
//
// While no server answers the pause grows to a minute. Without servers nothing is sent and no timer runs.
type Reporter struct {
	cfg  Config
	wake chan struct{} // a message was taken, or there is something new to do

	mu      sync.Mutex
	round   *Behaviour // the last one, or that under way; nil before
	report  Report
	near    []Target      // of the last full round, the nearest ones
	changed bool          // the links did: a full round is wanted, and one under way is of no use
	deep    bool          // a full round is wanted for another reason
	light   bool          // a light round is wanted
	waiting []chan Report // each wants a full round
	count   Counters
}

// NewReporter makes a Reporter. Nothing is sent before Run.
func NewReporter(cfg Config) *Reporter {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reporter{cfg: cfg, wake: make(chan struct{}, 1)}
}

// LinkChanged has everything found out anew: the links changed, or the servers did. The caller waits for the links to
// settle.
func (r *Reporter) LinkChanged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.near = nil
	r.changed = true
	r.poke()
}

// Refresh has the nearest servers asked now, unless that was done within the last 20 s: somebody is about to be told
// our address.
func (r *Reporter) Refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.light = true
	r.poke()
}

// Report is the last one. Its At is zero before the first.
func (r *Reporter) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report
}

// Counters are totals so far.
func (r *Reporter) Counters() Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// Check makes a full report, within 5 s. Run has to be under way. It fails when ctx or its time ends first, and then
// returns the last report.
func (r *Reporter) Check(ctx context.Context) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	done := make(chan Report, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, done)
	r.poke()
	r.mu.Unlock()
	select {
	case rep := <-done:
		return rep, nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = slices.DeleteFunc(r.waiting, func(c chan Report) bool { return c == done })
	return r.report, ctx.Err()
}

// HandleSTUN takes a datagram with STUN's magic cookie that came by the own socket. What answers no question is
// counted; it costs a look at the header. borrowed: pkt is only read during the call.
func (r *Reporter) HandleSTUN(from netip.AddrPort, pkt []byte) { r.handle(MainSocket, from, pkt) }

func (r *Reporter) handle(by Socket, from netip.AddrPort, pkt []byte) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	v := Unknown
	if r.round != nil {
		v = r.round.Handle(now, by, from, pkt)
	}
	switch v {
	case Taken:
		r.count.Taken++
		r.poke()
	case Spoofed:
		r.count.Spoofed++
	case Malformed:
		r.count.Malformed++
	case Late:
		r.count.Late++
	case Unknown:
		r.count.Unknown++
	}
}

// poke wakes Run. Full: it is about to look anyway.
func (r *Reporter) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, whose error it returns. It is called once.
func (r *Reporter) Run(ctx context.Context) error {
	r.LinkChanged()
	var last, next time.Time // when the last round began, and when to think of another
	misses := 0              // rounds without any answer, in a row
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		full, light := r.wanted()
		if full || light && time.Since(last) >= restunMin {
			last = time.Now()
			rep, ok := r.once(ctx, full)
			if !ok {
				continue
			}
			misses++
			if len(rep.Mapped) > 0 {
				misses = 0
			}
			next = last.Add(pause(misses))
		}
		due := timer.C
		if len(r.cfg.Servers()) == 0 || r.cfg.Active == nil {
			due = nil
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-due:
			next = time.Now().Add(pause(misses))
			if r.cfg.Active() {
				r.Refresh()
			}
		}
	}
	return ctx.Err()
}

// pause is the time between rounds.
func pause(misses int) time.Duration {
	d := restunMin + rand.N(restunMax-restunMin)
	if misses > 0 {
		d = min(d<<min(misses, 4), restunIdle)
	}
	return d
}

// wanted takes what is to be done.
func (r *Reporter) wanted() (full, light bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full, light = r.changed || r.deep || len(r.waiting) > 0, r.light
	r.changed, r.deep, r.light = false, false, false
	return full, light
}

// once makes one round and tells its report. It fails when ctx ends, or something else is wanted meanwhile.
func (r *Reporter) once(ctx context.Context, full bool) (Report, bool) {
	start := time.Now()
	targets, failed := r.targets(ctx, full)
	rep, ok := r.ask(ctx, full, targets)
	if !ok {
		return rep, false
	}
	rep.Took = rep.At.Sub(start)
	rep.STUN = append(rep.STUN, failed...)
	rep.UDP = rep.UDP || r.cfg.Heard != nil && r.cfg.Heard()
	if rep.UDP && rep.NAT == netmap.NATBlocked {
		rep.NAT = netmap.NATUnknown
	}
	if r.cfg.PortMap != nil {
		rep.PortMap = r.cfg.PortMap()
	}
	rep = r.keep(rep, full)
	r.cfg.Logger.Debug("stun round", "endpoint", rep.IPv4, "nat", rep.NAT, "took", rep.Took)
	if r.cfg.Found != nil {
		r.cfg.Found(rep)
	}
	return rep, true
}

// keep makes a report the last one, and gives a full one to whoever waits for it.
func (r *Reporter) keep(rep Report, full bool) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	if full {
		r.near = nearest(rep.STUN)
		for _, c := range r.waiting {
			c <- rep
		}
		r.waiting = nil
	} else {
		if moved(r.report, rep) {
			r.deep = true
			r.poke()
		}
		rep = rep.after(r.report)
		if len(rep.Mapped) == 0 {
			r.near = nil // ask all of them next time
		}
	}
	r.report = rep
	return rep
}
