package discovery

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v3"

	"github.com/meshnet/meshnet/discovery/portmap"
	"github.com/meshnet/meshnet/netmap"
)

// reporting runs a Reporter in a bubble, against servers that answer after 20 ms.
type reporting struct {
	t      *testing.T
	r      *Reporter
	active atomic.Bool
	heard  atomic.Bool
	found  chan Report
	early  chan Report

	mu      sync.Mutex
	servers []string
	mapped  string // where servers see the main socket; "": they do not answer
	sent    []time.Time
	opened  int
}

// quietConn is a second socket that nobody answers.
type quietConn struct {
	net.PacketConn
	closed chan struct{}
}

func (c quietConn) ReadFrom([]byte) (int, net.Addr, error) {
	<-c.closed
	return 0, nil, net.ErrClosed
}

func (c quietConn) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }

func (c quietConn) Close() error {
	close(c.closed)
	return nil
}

func report(t *testing.T, mapped string, servers []string, do func(s *reporting)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &reporting{
			t: t, found: make(chan Report, 10000), early: make(chan Report, 10000), mapped: mapped, servers: servers,
		}
		s.r = NewReporter(Config{
			Send: s.send,
			Open: func() (net.PacketConn, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.opened++; s.opened > 100 {
					return nil, os.ErrPermission
				}
				return quietConn{closed: make(chan struct{})}, nil
			},
			Servers: func() []string {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.servers
			},
			Local:   func() []netip.AddrPort { return []netip.AddrPort{mainAddr} },
			Active:  s.active.Load,
			Heard:   s.heard.Load,
			PortMap: func() portmap.Status { return portmap.Status{Protocol: portmap.PCP} },
			Found:   func(r Report) { s.found <- r },
			Early:   func(r Report) { s.early <- r },
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- s.r.Run(ctx) }()
		do(s)
		cancel()
		if err := <-ended; err != context.Canceled {
			t.Errorf("Run: %v", err)
		}
	})
}

func (s *reporting) send(to netip.AddrPort, pkt []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, time.Now())
	if s.mapped == "" || to == silentServer {
		return
	}
	id, _, _ := stunID(pkt)
	answer := reply(id, stun.BindingSuccess, xored(s.mapped))
	time.AfterFunc(20*time.Millisecond, func() { s.r.HandleSTUN(to, answer) })
}

func (s *reporting) set(mapped string, servers ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mapped, s.servers = mapped, servers
}

func (s *reporting) packets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

// next waits for a report for up to d of virtual time.
func (s *reporting) next(d time.Duration) Report {
	s.t.Helper()
	select {
	case r := <-s.found:
		return r
	case <-time.After(d):
		s.t.Fatalf("no report within %v", d)
		return Report{}
	}
}

func (s *reporting) quiet(d time.Duration) {
	s.t.Helper()
	before := s.packets()
	select {
	case r := <-s.found:
		s.t.Fatalf("a report: %+v", r)
	case <-time.After(d):
	}
	if n := s.packets() - before; n > 0 {
		s.t.Fatalf("%d packets", n)
	}
}

// silentServer never answers.
var silentServer = ap("203.0.113.77:3478")

var twoServers = []string{"203.0.113.1:3478", "203.0.113.2:3478"}

func TestPeriod(t *testing.T) {
	report(t, "198.51.100.1:7", twoServers, func(s *reporting) {
		r := s.next(4 * time.Second)
		if r.IPv4 != ap("198.51.100.1:7") || r.Mapping != MappingIndependent || r.NAT != netmap.NATEasy || r.PortMap.Protocol != portmap.PCP {
			t.Errorf("got %+v", r)
		}
		if got := s.r.Report(); got.At != r.At || got.IPv4 != r.IPv4 {
			t.Errorf("Report = %+v", got)
		}
		s.quiet(10 * time.Minute)
		s.active.Store(true)
		s.next(30 * time.Second)
		seen := make(map[time.Duration]bool)
		for range 50 {
			last := s.packets()
			start := time.Now()
			r := s.next(30 * time.Second)
			if d := time.Since(start); d < restunMin-time.Second || d > restunMax+time.Second {
				t.Errorf("after %v", d)
			} else {
				seen[d.Truncate(time.Second)] = true
			}
			if n := s.packets() - last; n != len(twoServers) {
				t.Errorf("%d packets in a light round", n)
			}
			if r.NAT != netmap.NATEasy {
				t.Errorf("got %+v", r)
			}
		}
		if len(seen) < 4 {
			t.Errorf("pauses of %v only", seen)
		}
		s.active.Store(false)
		s.quiet(time.Hour)
	})
}

// A node that is cut off asks once a minute at most; one without servers never.
func TestCutOff(t *testing.T) {
	report(t, "", twoServers, func(s *reporting) {
		s.active.Store(true)
		if r := s.next(5 * time.Second); r.UDP || r.NAT != netmap.NATBlocked || r.Took < serverWait {
			t.Errorf("got %+v", r)
		}
		before := s.packets()
		time.Sleep(time.Hour)
		if n := s.packets() - before; n < 400 || n > 62*len(twoServers)*len(serverTries) {
			t.Errorf("%d packets in an hour", n)
		}
		for len(s.found) > 0 {
			<-s.found
		}
		s.set("198.51.100.1:7", twoServers...)
		r := s.next(70 * time.Second)
		for !r.UDP {
			r = s.next(70 * time.Second)
		}
		if r.IPv4 != ap("198.51.100.1:7") || r.NAT != netmap.NATEasy {
			t.Errorf("back: %+v", r)
		}
		s.set("198.51.100.1:7")
		s.next(time.Minute) // with the servers that it knew
		s.quiet(24 * time.Hour)
	})
	report(t, "", nil, func(s *reporting) {
		s.active.Store(true)
		if r := s.next(time.Second); r.UDP || r.NAT != netmap.NATUnknown || len(r.STUN) != 0 {
			t.Errorf("got %+v", r)
		}
		s.quiet(24 * time.Hour)
		start := time.Now()
		if r, err := s.r.Check(s.t.Context()); err != nil || r.UDP || time.Since(start) > time.Second {
			t.Errorf("check: %+v, %v after %v", r, err, time.Since(start))
		}
	})
}

func TestHeard(t *testing.T) {
	report(t, "", twoServers, func(s *reporting) {
		s.heard.Store(true)
		if r := s.next(5 * time.Second); !r.UDP || r.NAT != netmap.NATUnknown {
			t.Errorf("UDP works, as members answer: %+v", r)
		}
	})
}

func TestCheck(t *testing.T) {
	report(t, "", append([]string{"not an address"}, twoServers...), func(s *reporting) {
		start := time.Now()
		r, err := s.r.Check(s.t.Context())
		if took := time.Since(start); err != nil || took > checkLimit || r.NAT != netmap.NATBlocked {
			t.Errorf("%+v, %v after %v", r, err, took)
		}
		if len(r.STUN) != 3 || r.STUN[2].Err != `"not an address" is not host:port` || r.STUN[2].Server != "not an address" {
			t.Errorf("servers: %+v", r.STUN)
		}
		s.set("198.51.100.1:7", twoServers...)
		s.active.Store(true)
		// Many at once, also during a light round, are one round or two.
		time.Sleep(restunMax)
		before := s.packets()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				start := time.Now()
				if r, err := s.r.Check(s.t.Context()); err != nil || !r.UDP || time.Since(start) > checkLimit {
					t.Errorf("%+v, %v after %v", r, err, time.Since(start))
				}
			})
		}
		wg.Wait()
		if n := s.packets() - before; n > 20 {
			t.Errorf("%d packets", n)
		}
		ctx, cancel := context.WithCancel(s.t.Context())
		cancel()
		if _, err := s.r.Check(ctx); err != context.Canceled {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// A check without Run ends too.
func TestCheckAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReporter(Config{Send: func(netip.AddrPort, []byte) {}, Servers: func() []string { return nil }, Local: func() []netip.AddrPort { return nil }})
		start := time.Now()
		if _, err := r.Check(t.Context()); err != context.DeadlineExceeded || time.Since(start) != checkLimit {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if len(r.waiting) != 0 {
			t.Error("it is still waited for")
		}
	})
}

// A change of links ends the round under way: its answers are of the old network.
func TestLinkChanged(t *testing.T) {
	report(t, "", twoServers, func(s *reporting) {
		time.Sleep(time.Second)
		s.set("198.51.100.1:7", "203.0.113.9:3478")
		s.r.LinkChanged()
		r := s.next(2 * time.Second) // half a round of the old network would end later
		if !r.UDP || len(r.STUN) != 1 || r.STUN[0].Server != "203.0.113.9:3478" {
			t.Errorf("got %+v", r)
		}
		s.quiet(time.Minute)
	})
}

func TestRefresh(t *testing.T) {
	report(t, "198.51.100.1:7", twoServers, func(s *reporting) {
		s.next(4 * time.Second)
		for range 10 {
			s.r.Refresh()
			time.Sleep(time.Second)
		}
		s.quiet(restunMin)
		s.r.Refresh()
		s.next(time.Second)
		s.quiet(time.Minute)
	})
}

// Where the socket is seen is told while a server that does not answer is still waited for.
func TestEarly(t *testing.T) {
	report(t, "198.51.100.1:7", append([]string{silentServer.String()}, twoServers...), func(s *reporting) {
		select {
		case r := <-s.early:
			if r.IPv4 != ap("198.51.100.1:7") || r.NAT != netmap.NATEasy || s.r.Report().IPv4 != r.IPv4 {
				t.Errorf("got %+v", r)
			}
		case <-time.After(fallbackAfter):
			t.Error("nothing was told early")
		}
		s.next(4 * time.Second)
		s.r.LinkChanged()
		s.next(4 * time.Second)
		if len(s.early) > 0 {
			t.Errorf("told as news: %+v", <-s.early)
		}
	})
}

// What only full rounds find out stays, until the outside address is another.
func TestLightAfterFull(t *testing.T) {
	yes := true
	full := Report{
		Mapped: []netip.AddrPort{ap("198.51.100.1:7")}, NAT: netmap.NATHard,
		Mapping: MappingAddressAndPort, Filtering: FilteringAddress, Hairpin: &yes,
	}
	light := Report{Mapped: []netip.AddrPort{ap("198.51.100.1:9")}, NAT: netmap.NATHard, Mapping: MappingVarying}
	if got := light.after(full); got.Mapping != MappingAddressAndPort || got.Filtering != FilteringAddress || got.Hairpin != &yes {
		t.Errorf("got %+v", got)
	}
	light.NAT, light.Mapping = netmap.NATEasy, MappingIndependent
	if got := light.after(full); got.NAT != netmap.NATEasy || got.Mapping != MappingIndependent {
		t.Errorf("another mapping: %+v", got)
	}
	light.Mapped[0] = ap("198.51.100.2:7")
	if got := light.after(full); got.Filtering != "" || got.Hairpin != nil {
		t.Errorf("another address: %+v", got)
	}
}

func TestMovedAddress(t *testing.T) {
	report(t, "198.51.100.1:7", twoServers, func(s *reporting) {
		s.next(4 * time.Second)
		if s.opened != 1 {
			t.Errorf("%d second sockets", s.opened)
		}
		s.active.Store(true)
		s.next(30 * time.Second)
		s.set("198.51.100.2:7", twoServers...)
		if r := s.next(30 * time.Second); r.IPv4 != ap("198.51.100.2:7") {
			t.Errorf("got %+v", r)
		}
		if s.next(4 * time.Second); s.opened != 2 {
			t.Errorf("%d second sockets: no full round", s.opened)
		}
	})
}

// A server that only has addresses of a family which this host does not have is not waited for.
func TestFamilies(t *testing.T) {
	servers := append([]string{"[2001:db8::1]:3478"}, twoServers...)
	report(t, "198.51.100.1:7", servers, func(s *reporting) {
		r := s.next(testWait + hairpinWait)
		if r.IPv4 != ap("198.51.100.1:7") || len(r.STUN) != 3 || r.STUN[2].Server != servers[0] || r.STUN[2].Err == "" {
			t.Errorf("got %+v", r)
		}
	})
	local := []netip.AddrPort{ap("[fe80::1]:7"), ap("192.168.1.2:7")}
	for addr, want := range map[string]bool{
		"203.0.113.1": true, "10.0.0.1": true, "2001:db8::1": false, "fd00::1": false, "fe80::2": true,
	} {
		if got := speaks(local, netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
		if !speaks(nil, netip.MustParseAddr(addr)) {
			t.Errorf("%s without knowing our own", addr)
		}
	}
}

// The nearest server of each of two addresses and family.
func TestNearest(t *testing.T) {
	ms := time.Millisecond
	ok := ap("198.51.100.1:7")
	got := nearest([]ServerReport{
		{"far", ap("203.0.113.1:1"), ok, 90 * ms, ""},
		{"silent", ap("203.0.113.2:1"), netip.AddrPort{}, 0, "no answer"},
		{"near", ap("203.0.113.3:1"), ok, 10 * ms, ""},
		{"near, other port", ap("203.0.113.3:2"), ok, 11 * ms, ""},
		{"middle", ap("203.0.113.4:1"), ok, 50 * ms, ""},
		{"six", ap("[2001:db8::1]:1"), ap("[2001:db8::9]:1"), 70 * ms, ""},
	})
	if len(got) != 3 || got[0].Server != "near" || got[1].Server != "middle" || got[2].Server != "six" {
		t.Errorf("got %v", got)
	}
}

// What is foreign is counted, and costs next to nothing.
func TestForeign(t *testing.T) {
	report(t, "198.51.100.1:7", twoServers, func(s *reporting) {
		s.next(4 * time.Second)
		from := ap("192.0.2.66:1")
		foreign := reply(newTxID(), stun.BindingSuccess, xored("192.0.2.1:1"))
		s.r.HandleSTUN(from, foreign)
		s.r.HandleSTUN(from, bindingRequest(newTxID(), 0))
		s.r.HandleSTUN(from, foreign[:10])
		n := s.r.Counters()
		if n.Unknown != 2 || n.Malformed != 1 || n.Taken != 2 || n.Sent < 2 {
			t.Errorf("counters %+v", n)
		}
	})
}

func BenchmarkForeign(b *testing.B) {
	r := NewReporter(Config{})
	r.round = NewBehaviour(time.Now(), Round{Targets: []Target{{"s", ap("203.0.113.1:3478")}}})
	r.round.Tick(time.Now())
	pkt := reply(newTxID(), stun.BindingSuccess, xored("192.0.2.1:1"))
	from := ap("192.0.2.66:1")
	b.ReportAllocs()
	for b.Loop() {
		r.HandleSTUN(from, pkt)
	}
}
