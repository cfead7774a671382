package relay

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// scene drives a roster through time, and does what its plans ask for.
type scene struct {
	*roster
	t     *testing.T
	began time.Time
	now   time.Time
	net   map[string]time.Duration // latency of servers that answer; others fail
	dials []string                 // since the last call of dialled
	lost  []string                 // closed for want of use, since the last call of closed
	homes []string                 // announced last
}

func newScene(t *testing.T, homes int, servers string) *scene {
	began := time.Unix(1_000_000, 0)
	s := &scene{
		roster: newRoster(began, homes, func() float64 { return 0.5 }), t: t, began: began, now: began,
		net: make(map[string]time.Duration),
	}
	s.configure(servers)
	return s
}

func (s *scene) configure(servers string) {
	var urls []URL
	for name := range strings.FieldsSeq(servers) {
		urls = append(urls, serverURL(name))
	}
	s.setServers(s.now, urls)
}

func serverURL(name string) URL { return URL{Host: name + ".example", Port: 443} }

func nameOf(s *server) string { return strings.TrimSuffix(s.url.Host, ".example") }

func (s *scene) server(name string) *server { return s.roster.servers[serverURL(name)] }

// run lets time pass, in which connections take as long as their round trips are.
func (s *scene) run(d time.Duration) {
	s.t.Helper()
	end := s.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 100_000 {
			s.t.Fatal("it plans without end")
		}
		next := s.once()
		if next.IsZero() || next.After(end) {
			s.now = end
			s.once()
			return
		}
		if !next.After(s.now) {
			s.t.Fatalf("it wants to be asked again at once: %v", next.Sub(s.now))
		}
		s.now = next
	}
}

// once plans, and does it, until nothing comes of it any more.
func (s *scene) once() time.Time {
	for {
		for _, srv := range s.sorted() {
			if srv.phase == connected {
				srv.observe(s.now, s.began, s.now, s.net[nameOf(srv)])
			}
		}
		p := s.plan(s.now)
		for _, srv := range p.dial {
			s.dials = append(s.dials, nameOf(srv))
			if s.net[nameOf(srv)] > 0 {
				srv.connected(s.now)
			} else {
				srv.ended(s.now, errors.New("no route"), 0.5)
			}
		}
		for _, srv := range p.close {
			s.lost = append(s.lost, nameOf(srv))
			srv.phase, srv.since = idle, s.now
		}
		for _, e := range s.events {
			if e.Kind == HomesChanged {
				s.homes = nil
				for _, text := range e.Homes {
					u, _ := ParseURL(text)
					s.homes = append(s.homes, strings.TrimSuffix(u.Host, ".example"))
				}
			}
		}
		s.events = nil
		if len(p.dial)+len(p.close) == 0 {
			return p.next
		}
	}
}

// fails ends a connection.
func (s *scene) fails(names ...string) {
	for _, name := range names {
		delete(s.net, name)
		if srv := s.server(name); srv.phase == connected {
			srv.ended(s.now, errors.New("reset"), 0.5)
		}
	}
}

func (s *scene) want(homes string) {
	s.t.Helper()
	if got := strings.Join(s.homes, " "); got != homes {
		s.t.Errorf("after %v the homes are %q, want %q", s.now.Sub(s.began), got, homes)
	}
}

func (s *scene) wantDials(names string) {
	s.t.Helper()
	if got := strings.Join(s.dials, " "); got != names {
		s.t.Errorf("after %v these were dialled: %q, want %q", s.now.Sub(s.began), got, names)
	}
	s.dials = nil
}

const ms = time.Millisecond

func TestHomesAreTheNearest(t *testing.T) {
	s := newScene(t, 2, "a b c d")
	s.net = map[string]time.Duration{"a": 80 * ms, "b": 20 * ms, "c": 50 * ms}
	s.run(100 * ms)
	s.wantDials("a b c d")
	s.want("b c")
	s.run(59 * time.Second)
	if len(s.lost) > 0 {
		t.Errorf("%q were left before a minute", s.lost)
	}
	s.run(2 * time.Second)
	if !slices.Equal(s.lost, []string{"a"}) {
		t.Errorf("%q were left after a minute, want a", s.lost)
	}
	s.want("b c")
	s.wantDials("")
}

// The first choice does not wait for servers that hang.
func TestHomesSettle(t *testing.T) {
	s := newScene(t, 1, "hangs near")
	plan := s.plan(s.now)
	if len(plan.dial) != 2 {
		t.Fatalf("%d are dialled", len(plan.dial))
	}
	s.server("near").connected(s.now)
	s.net["near"] = 5 * ms
	s.once()
	s.want("")
	s.run(settle)
	s.want("near")
}

func TestHomesChange(t *testing.T) {
	for _, tt := range []struct {
		name     string
		old, new time.Duration
		changes  bool
	}{
		{"much better", 90 * ms, 30 * ms, true},
		{"just better", 30 * ms, 20 * ms, true},
		{"not by a third", 90 * ms, 61 * ms, false},
		{"not by 10 ms", 20 * ms, 11 * ms, false},
		{"worse", 20 * ms, 50 * ms, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, 1, "old")
			s.net["old"] = tt.old
			s.run(time.Minute)
			s.want("old")
			s.net["new"] = tt.new
			s.configure("old new")
			s.run(trialTime - time.Second)
			s.want("old") // not proven yet
			s.run(2 * time.Second)
			want := map[bool]string{true: "new", false: "old"}[tt.changes]
			s.want(want)
			s.run(time.Hour)
			s.want(want)
		})
	}
}

// Two servers that take turns in being better are not followed.
func TestHomesAreSteady(t *testing.T) {
	s := newScene(t, 1, "a b")
	s.net = map[string]time.Duration{"a": 20 * ms, "b": 100 * ms}
	s.run(time.Minute)
	changes, last := 0, s.now
	for range 120 { // half an hour
		s.net["a"], s.net["b"] = s.net["b"], s.net["a"]
		before := s.homes
		s.server("a").used.Store(int64(s.now.Sub(s.began))) // somebody keeps both connected
		s.server("b").used.Store(int64(s.now.Sub(s.began)))
		s.run(15 * time.Second)
		if !slices.Equal(before, s.homes) {
			if changes++; changes > 1 && s.now.Sub(last) < homeChange {
				t.Fatalf("changed again after %v", s.now.Sub(last))
			}
			last = s.now
		}
	}
	if changes > 6 {
		t.Errorf("%d changes in half an hour", changes)
	}
}

// A better one that is not good for long is not taken, and not tried again soon.
func TestTrialFails(t *testing.T) {
	s := newScene(t, 1, "old new")
	s.net = map[string]time.Duration{"old": 50 * ms, "new": 90 * ms}
	s.run(2 * time.Second)
	s.want("old")
	trials := 0
	for range 10 * 60 {
		began := s.trial == nil
		s.server("new").used.Store(int64(s.now.Sub(s.began))) // somebody keeps it connected
		if s.trial == nil {
			s.server("new").rtt = 10 * ms // as if it was so lately
		}
		s.run(time.Second)
		if began && s.trial != nil {
			trials++
		}
	}
	s.want("old")
	if trials < 2 || trials > 3 {
		t.Errorf("%d trials in 10 minutes", trials)
	}
}

func TestLostHome(t *testing.T) {
	s := newScene(t, 2, "a b c")
	s.net = map[string]time.Duration{"a": 10 * ms, "b": 20 * ms, "c": 30 * ms}
	s.run(10 * time.Second)
	s.want("a b")
	s.wantDials("a b c")
	s.fails("a") // c is connected still
	s.run(0)
	s.want("b c")
	s.wantDials("")

	s.net["a"] = 10 * ms
	s.run(2 * time.Minute)
	s.want("b c") // 10 ms, but who knows: it was not measured since
	s.fails("b")  // a is not connected, but can be
	s.run(0)
	s.run(10 * ms)
	s.want("a c")
	s.wantDials("a")
}

// A home without a replacement is dialled again and again, ever more rarely, and not announced meanwhile.
func TestLostAlone(t *testing.T) {
	s := newScene(t, 2, "a b")
	s.net = map[string]time.Duration{"a": 10 * ms, "b": 20 * ms}
	s.run(time.Minute)
	s.dials = nil
	s.fails("a")
	s.run(400 * ms)
	s.wantDials("")
	s.run(200 * ms)
	s.wantDials("a")
	s.want("a b")
	s.run(5 * time.Second)
	s.want("b")
	s.run(10*time.Minute - s.now.Sub(s.began))
	if n := len(s.dials); n < 18 || n > 30 {
		t.Errorf("dialled %d times in 9 minutes", n)
	}
	s.net["a"] = 10 * ms
	s.run(31 * time.Second)
	s.want("a b")
	s.fails("a", "b")
	s.run(10 * time.Second)
	s.want("")
}

func TestRedial(t *testing.T) {
	s := &server{}
	now := time.Unix(1_000_000, 0)
	var waits []time.Duration
	for range 9 {
		s.dial(now)
		s.ended(now, errors.New("no route"), 0.5)
		waits = append(waits, s.next.Sub(now))
		now = s.next
	}
	want := []time.Duration{500 * ms, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, redialMax, redialMax, redialMax}
	if !slices.Equal(waits, want) {
		t.Errorf("the waits are %v, want %v", waits, want)
	}
	s.connected(now)
	s.ended(now.Add(time.Second), errors.New("reset"), 0.5)
	if got := s.next.Sub(now.Add(time.Second)); got != redialMax {
		t.Errorf("after a second of connection it waits %v: flapping is not damped", got)
	}
	s.connected(now)
	now = now.Add(redialFresh)
	s.ended(now, errors.New("reset"), 0)
	if got := s.next.Sub(now); got != redialFirst*3/4 {
		t.Errorf("after a long connection it waits %v", got)
	}
	for _, err := range []error{ErrPin, ErrName, ErrExpired, ErrUnknownCA, ErrPass, ErrPassExpired} {
		s := &server{}
		s.ended(now, fmt.Errorf("connect: %w", err), 0.5)
		if got := s.next.Sub(now); got != redialMax {
			t.Errorf("after %v it waits %v", err, got)
		}
	}
}

// A home that says it restarts keeps its place for as long as it asked for, if there is another.
func TestRestart(t *testing.T) {
	for _, tt := range []struct {
		name  string
		homes int
		back  bool
		want  string // after the restart
	}{
		{"comes back", 2, true, "a b"},
		{"stays away", 2, false, "b c"},
		{"the only home", 1, true, "b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, tt.homes, "a b c")
			s.net = map[string]time.Duration{"a": 10 * ms, "b": 20 * ms, "c": 30 * ms}
			s.run(50 * time.Second)
			s.dials = nil
			s.server("a").restarting(s.now, 2*time.Second, 20*time.Second)
			latency := s.net["a"]
			delete(s.net, "a")
			s.server("a").ended(s.now, ErrRestarting, 0.5)
			s.run(1900 * ms)
			s.wantDials("")
			if tt.back {
				s.net["a"] = latency
			}
			s.run(time.Minute)
			s.want(tt.want)
		})
	}
}

func TestServersRemoved(t *testing.T) {
	s := newScene(t, 2, "a b c")
	s.net = map[string]time.Duration{"a": 10 * ms, "b": 20 * ms, "c": 30 * ms}
	s.run(time.Minute)
	s.configure("b c")
	s.run(time.Second)
	s.want("b c")
	s.run(2 * time.Minute)
	if !slices.Contains(s.lost, "a") {
		t.Error("a server that is none of ours any more is still connected")
	}
	s.run(forget + time.Minute)
	if s.server("a") != nil {
		t.Error("it is not forgotten")
	}
	s.configure("")
	s.run(2 * time.Minute)
	s.want("")
	if n := len(s.roster.servers); n > 2 {
		t.Errorf("%d servers are known", n)
	}
}

// Idle homes need no attention, and measuring others again is rare.
func TestQuiet(t *testing.T) {
	s := newScene(t, 2, "a b c")
	s.net = map[string]time.Duration{"a": 10 * ms, "b": 30 * ms, "c": 40 * ms}
	s.run(2 * time.Minute)
	s.dials = nil
	if next := s.once(); next.Sub(s.now) < 20*time.Minute {
		t.Errorf("it wants attention in %v", next.Sub(s.now))
	}
	s.run(24 * time.Hour)
	if n := len(s.dials); n < 40 || n > 56 || slices.ContainsFunc(s.dials, func(name string) bool { return name != "c" }) {
		t.Errorf("%d dials in a day: %q", n, s.dials)
	}
	s.net["b"] = 8 * ms
	s.run(2 * time.Hour)
	s.dials = nil
	s.run(24 * time.Hour)
	s.wantDials("") // nothing could be better by 10 ms
}

func TestDoubt(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := &server{phase: connected}
	heard, sent := now, now
	step := func(d, rtt time.Duration) (ping, turned bool) {
		now = now.Add(d)
		return s.observe(now, sent, heard, rtt)
	}
	if ping, _ := step(time.Hour, 20*ms); ping || s.doubt {
		t.Error("silence after silence is no reason")
	}
	sent = now
	if ping, _ := step(100*ms, 20*ms); !ping {
		t.Error("it is not asked although it was not heard for an hour")
	}
	heard = now
	if ping, turned := step(time.Second, 20*ms); ping || turned || s.doubt {
		t.Error("it answered")
	}
	sent = now
	if ping, _ := step(0, 20*ms); !ping {
		t.Error("it is not asked")
	}
	if ping, turned := step(900*ms, 20*ms); ping || turned || s.doubt {
		t.Error("in doubt too early")
	}
	if _, turned := step(100*ms, 20*ms); !turned || !s.doubt {
		t.Error("not in doubt")
	}
	heard = now
	if _, turned := step(100*ms, 20*ms); !turned || s.doubt {
		t.Error("in doubt although it answered")
	}
	if s.rtt != 20*ms {
		t.Errorf("the latency is %v", s.rtt)
	}
	step(0, 100*ms)
	if s.rtt != 30*ms {
		t.Errorf("after one slow answer the latency is %v", s.rtt)
	}
}

func TestParking(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var s server
	put := func(size int, at time.Time) int {
		return s.park(parcel{pkts: [][]byte{make([]byte, size)}, size: size, at: at})
	}
	dropped := 0
	for range 3 * maxWaiting {
		dropped += put(100, now)
	}
	if dropped != 2*maxWaiting || len(s.waiting) != maxWaiting {
		t.Errorf("%d dropped, %d wait", dropped, len(s.waiting))
	}
	if put(maxWaitingBytes, now) != maxWaiting {
		t.Error("the bound of bytes does not hold")
	}
	put(100, now.Add(-2*maxWaitingAge))
	s.unpark(now)
	put(1, now.Add(-2*maxWaitingAge))
	put(2, now)
	parcels, old := s.unpark(now)
	if old != 1 || len(parcels) != 1 || parcels[0].size != 2 || s.waitingBytes != 0 || s.waiting != nil {
		t.Errorf("%d old ones, %d parcels, %d bytes are left", old, len(parcels), s.waitingBytes)
	}
}

func TestPick(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, tt := range []struct {
		name  string
		up    string // connected
		doubt string // of these
		wait  string // not to be dialled now
		slow  string // dialled for long
		homes string // ours
		heard string
		long  bool // ago
		gone  string
		his   string // homes of the peer
		want  string // +name: a URL that no server is known for
	}{
		{name: "nothing yet", want: "a"},
		{name: "heard", up: "a b c", homes: "a", heard: "c", his: "b", want: "c"},
		{name: "heard long ago", up: "a b c", homes: "a", heard: "c", long: true, his: "b", want: "b"},
		{name: "heard long ago, his home is down", up: "a c", homes: "a", heard: "c", long: true, wait: "b", his: "b", want: "c"},
		{name: "heard, and lost since", up: "a b", homes: "a", heard: "c", his: "b", want: "b"},
		{name: "heard, and gone since", up: "a b c", homes: "a", heard: "c", gone: "c", his: "c b", want: "b"},
		{name: "heard, in doubt", up: "a b c", doubt: "c", homes: "a", heard: "c", his: "b", want: "b"},
		{name: "his home is connected", up: "a b", homes: "a", his: "x b", want: "b"},
		{name: "his home can be dialled", up: "a b", homes: "a", his: "c", want: "c"},
		{name: "his home is unknown", up: "a b", homes: "a", his: "x", want: "+x"},
		{name: "his home is down", up: "a b", wait: "c", homes: "a", his: "c", want: "a"},
		{name: "his first home is down", up: "a", wait: "b", homes: "a", his: "b c", want: "c"},
		{name: "his first home hangs", up: "a", slow: "b", homes: "a", his: "b c", want: "c"},
		{name: "his only home hangs", up: "a", slow: "b", homes: "a", his: "b", want: "a"},
		{name: "his only home hangs, and there is no other", slow: "b", wait: "a c", homes: "a", his: "b", want: "b"},
		{name: "his home in doubt is better than none", up: "b", doubt: "b", wait: "a c", homes: "a", his: "b", want: "b"},
		{name: "but not better than ours", up: "a b", doubt: "b", homes: "a", his: "b", want: "a"},
		{name: "nobody knows his homes", up: "a b", homes: "b", want: "b"},
		{name: "our home is down, another is up", up: "c", wait: "a", homes: "a", want: "c"},
		{name: "none is up, one can be dialled", wait: "a", homes: "a", want: "b"},
		{name: "all are down", wait: "a b c", homes: "a", want: ""},
		{name: "gone from all", up: "a b c", homes: "a", gone: "a b c", his: "a", want: ""},
		{name: "gone from the home", up: "a b", homes: "a b", gone: "a", want: "b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, 2, "a b c")
			in := func(list string) []*server {
				var found []*server
				for name := range strings.FieldsSeq(list) {
					found = append(found, s.server(name))
				}
				return found
			}
			for _, srv := range in(tt.up) {
				srv.connected(now)
			}
			for _, srv := range in(tt.doubt) {
				srv.doubt = true
			}
			for _, srv := range in(tt.wait) {
				srv.next = now.Add(time.Second)
			}
			for _, srv := range in(tt.slow) {
				srv.dial(now.Add(-slowDial))
			}
			s.roster.homes = in(tt.homes)
			p := new(peer)
			if tt.heard != "" {
				p.heard.Store(s.server(tt.heard))
				if p.heardAt.Store(int64(now.Sub(s.began) - heardTime + 1)); tt.long {
					p.heardAt.Store(int64(now.Sub(s.began) - heardTime))
				}
			}
			for _, srv := range in(tt.gone) {
				p.wasGone(now, srv)
			}
			var homes []URL
			for name := range strings.FieldsSeq(tt.his) {
				homes = append(homes, serverURL(name))
			}
			srv, named := s.pick(now, p, homes)
			got := ""
			switch {
			case srv != nil:
				got = nameOf(srv)
			case named != (URL{}):
				got = "+" + nameOf(&server{url: named})
			}
			if got != tt.want {
				t.Errorf("it goes by %q, want %q", got, tt.want)
			}
		})
	}
}

func TestGone(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s, other := new(server), new(server)
	var p peer
	for _, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, goneMax, goneMax} {
		p.wasGone(now, s)
		if !p.absent(now.Add(want-1), s) || p.absent(now.Add(want), s) || p.absent(now, other) {
			t.Errorf("it is not passed over for %v", want)
		}
		now = now.Add(want)
	}
	p.wasGone(now, s)
	p.isBack(s)
	if p.absent(now, s) {
		t.Error("it was heard there, and is passed over")
	}
	for range 2 * maxGone {
		p.wasGone(now, new(server))
	}
	if len(p.gone) != maxGone {
		t.Errorf("%d servers are remembered", len(p.gone))
	}
}

func TestPeerCache(t *testing.T) {
	var c peerCache
	id := func(n int) (id identity.PeerID) {
		id[0], id[1], id[2] = byte(n), byte(n>>8), byte(n>>16)
		return id
	}
	first := c.get(id(0))
	for n := range 10 * maxPeers {
		c.get(id(n))
		if n%1000 == 0 && c.get(id(0)) != first {
			t.Fatal("one that is used was forgotten")
		}
		if len(c.young)+len(c.old) > 2*maxPeers {
			t.Fatalf("%d peers are remembered", len(c.young)+len(c.old))
		}
	}
	if c.peek(id(1)) != nil {
		t.Error("one that was not used for long is remembered")
	}
}

func TestNamedServersAreBounded(t *testing.T) {
	s := newScene(t, 1, "a")
	for i := range 3 * maxNamed {
		s.now = s.now.Add(time.Millisecond)
		if s.named(s.now, serverURL(fmt.Sprint("n", i))) == nil {
			t.Fatal("none is forgotten for a new one")
		}
	}
	if n := len(s.roster.servers); n != maxNamed+1 {
		t.Errorf("%d servers are known", n)
	}
	if s.server("n0") != nil || s.server(fmt.Sprint("n", 3*maxNamed-1)) == nil || s.server("a") == nil {
		t.Error("not the oldest ones are forgotten")
	}
	for _, srv := range s.roster.servers {
		srv.connected(s.now)
	}
	if s.named(s.now, serverURL("more")) != nil {
		t.Error("one that is in use was forgotten")
	}
}
