package guess

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/sim"
)

var (
	begin  = time.Unix(1_700_000_000, 0)
	target = netip.MustParseAddr("203.0.113.1")
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func TestSprayKeepsItsBudget(t *testing.T) {
	s := NewSpray(begin, target, []uint16{40000, 65530, 7}, random(1))
	seen := make(map[uint16]bool)
	now, last, most := begin, begin, 0
	for !s.Over(now) {
		now = s.Due()
		to := s.Tick(now)
		if s.Tick(now) != nil {
			t.Fatal("more than a batch at once")
		}
		for _, at := range to {
			if at.Addr() != target || at.Port() < firstPort || seen[at.Port()] {
				t.Fatalf("pinged %v", at)
			}
			seen[at.Port()] = true
			last = now
		}
		most = max(most, len(to))
	}
	if len(seen) != MaxProbes || most != sprayBatch || last.Sub(begin) > 7*time.Second {
		t.Fatalf("%d ports, %d at once, the last after %v", len(seen), most, last.Sub(begin))
	}
	for _, near := range []uint16{40001, 40032, 65535} {
		if !seen[near] {
			t.Errorf("port %d, which comes next, was not pinged", near)
		}
	}
	if now.Sub(begin) != Window {
		t.Errorf("over after %v", now.Sub(begin))
	}
}

func TestFanKeepsItsBudget(t *testing.T) {
	for _, sockets := range []int{0, 1, 17, Sockets, 9999} {
		f := NewFan(begin, sockets)
		pings := make([]int, Sockets)
		now, opened := begin, begin
		for !f.Over(now) {
			now = f.Due()
			from, to := f.Tick(now)
			for i := from; i < to; i++ {
				if pings[i]++; pings[i] == 1 {
					opened = now
				}
			}
		}
		for i, n := range pings[:min(sockets, Sockets)] {
			if n != fanRounds {
				t.Fatalf("%d sockets: socket %d pinged %d times", sockets, i, n)
			}
		}
		if slices.ContainsFunc(pings[min(sockets, Sockets):], func(n int) bool { return n > 0 }) {
			t.Fatalf("%d sockets: one that is not there pinged", sockets)
		}
		if opened.Sub(begin) > time.Second {
			t.Fatalf("%d sockets: the last pings after %v", sockets, opened.Sub(begin))
		}
	}
	if fanRounds*Sockets > MaxProbes {
		t.Fatal("more pings than allowed")
	}
}

func TestLimits(t *testing.T) {
	var l Limits
	peer := func(n int) identity.PeerID { return identity.PeerID{byte(n)} }
	addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}) }
	is := func(want, err error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}
	now := begin
	is(nil, l.Begin(now, peer(1), addr(1)))
	is(ErrSoon, l.Begin(now, peer(1), addr(9)))
	is(ErrSoon, l.Begin(now, peer(2), addr(1)))
	is(nil, l.Begin(now, peer(2), addr(2)))
	is(ErrBusy, l.Begin(now, peer(3), addr(3)))
	if !l.Running(peer(1)) || l.Running(peer(3)) {
		t.Fatal("the wrong ones run")
	}
	l.End(now, peer(1), true)
	l.End(now, peer(2), false)
	is(nil, l.Begin(now, peer(3), addr(3)))
	l.End(now, peer(3), false)
	now = now.Add(Every)
	is(nil, l.Begin(now, peer(1), addr(1)))
	is(nil, l.Begin(now, peer(2), addr(2)))
	l.End(now, peer(1), true)
	wait := Every
	for range 10 { // peer 2 fails again and again
		l.End(now, peer(2), false)
		wait = min(2*wait, MaxEvery)
		is(ErrSoon, l.Begin(now.Add(wait-1), peer(2), addr(2)))
		now = now.Add(wait)
		is(nil, l.Begin(now, peer(2), addr(2)))
	}
	l.End(now, peer(2), true)
	now = now.Add(2 * MaxEvery)
	is(nil, l.Begin(now, peer(4), addr(4)))
	if len(l.peers) != 1 || len(l.targets) != 1 {
		t.Fatalf("%d members and %d addresses remembered", len(l.peers), len(l.targets))
	}
	for _, bad := range []string{"127.0.0.1", "224.0.0.1", "169.254.1.1", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::1"} {
		is(ErrTarget, l.Begin(now, peer(5), netip.MustParseAddr(bad)))
	}
	is(ErrTarget, l.Begin(now, peer(5), netip.Addr{}))
}

// side is one side of a simulated attempt. Its packets are "ping", answered by "pong".
type side struct {
	world *sim.World
	ok    time.Time
	sent  int
}

func (s *side) bind(h *sim.Host) (socket *sim.Socket) {
	socket = h.Bind(0, func(from netip.AddrPort, pkt []byte) {
		if string(pkt) == "ping" {
			socket.Send(from, []byte("pong"))
		} else if s.ok.IsZero() {
			s.ok = s.world.Now()
		}
	})
	return socket
}

func (s *side) ping(socket *sim.Socket, to netip.AddrPort) {
	if s.ok.IsZero() {
		s.sent++
		socket.Send(to, []byte("ping"))
	}
}

// attempt plays one attempt between a hard and an easy NAT. It returns when both sides had an answer; zero: never.
func attempt(seed uint64, easy sim.NATKind, link sim.Link) (took time.Duration, hard, soft *side) {
	w := sim.New(seed)
	net := w.Network(link)
	hardNAT := net.NAT(sim.Symmetric, target)
	easyNAT := net.NAT(easy, netip.MustParseAddr("198.51.100.1"))
	hostA, hostB := hardNAT.Host(netip.MustParseAddr("10.0.0.2")), easyNAT.Host(netip.MustParseAddr("10.0.0.2"))
	hard, soft = &side{world: w}, &side{world: w}
	one := soft.bind(hostB)
	// What a STUN server would tell.
	var mapped netip.AddrPort
	server := net.Host(netip.MustParseAddr("192.0.2.1"))
	server.Bind(1, func(from netip.AddrPort, _ []byte) { mapped = from })
	one.Send(netip.MustParseAddrPort("192.0.2.1:1"), nil)
	w.RunFor(time.Second)

	start := w.Now()
	fan, spray := NewFan(start, Sockets), NewSpray(start, target, nil, random(seed))
	var sockets []*sim.Socket
	for range Sockets {
		sockets = append(sockets, hard.bind(hostA))
	}
	var fanOut, sprayOut func()
	fanOut = func() {
		from, to := fan.Tick(w.Now())
		for _, s := range sockets[from:to] {
			hard.ping(s, mapped)
		}
		if !fan.Over(w.Now()) {
			w.At(fan.Due(), fanOut)
		}
	}
	sprayOut = func() {
		for _, to := range spray.Tick(w.Now()) {
			soft.ping(one, to)
		}
		if !spray.Over(w.Now()) {
			w.At(spray.Due(), sprayOut)
		}
	}
	w.After(0, fanOut)
	w.After(time.Duration(w.Rand().IntN(500))*time.Millisecond, sprayOut)
	w.RunUntil(func() bool { return !soft.ok.IsZero() }, Window+time.Second)
	if soft.ok.IsZero() {
		return 0, hard, soft
	}
	return soft.ok.Sub(start), hard, soft
}

// TestSimHardToPortRestricted is the pair that nothing else brings together: nine of ten within ten seconds.
func TestSimHardToPortRestricted(t *testing.T) {
	for _, link := range []sim.Link{
		{Delay: 20 * time.Millisecond},
		{Delay: 60 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.05},
	} {
		t.Run(fmt.Sprintf("loss %v", link.Loss), func(t *testing.T) {
			var took []time.Duration
			const runs = 100
			for seed := range uint64(runs) {
				d, hard, soft := attempt(seed, sim.PortRestricted, link)
				if hard.sent > MaxProbes || soft.sent > MaxProbes {
					t.Fatalf("seed %d: %d and %d pings", seed, hard.sent, soft.sent)
				}
				if d > 0 && d < 10*time.Second {
					took = append(took, d)
				}
			}
			slices.Sort(took)
			t.Logf("seeds 0 to %d: %d direct, median %v, nine of ten within %v", runs-1, len(took), took[len(took)/2], took[len(took)*9/10])
			if len(took) < 90 {
				t.Fatalf("%d of %d", len(took), runs)
			}
		})
	}
}
