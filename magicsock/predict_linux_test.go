package magicsock

import (
	"bytes"
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/netmap"
)

// labSide is a Conn on a host of a lab. What it is sent comes back by Reply.
type labSide struct {
	id   *identity.Identity
	conn *Conn
	got  chan string // every datagram of data, by its way: "direct", "member"
}

func newLabSide(t *testing.T, seed byte, host *netlab.Host, cfg Config) *labSide {
	t.Helper()
	s := &labSide{id: identity.FromSeed(identity.Secret{seed}), got: make(chan string, 1<<16)}
	cfg.Identity, cfg.Events = s.id, func(Event) {}
	if err := host.Do(func() (err error) {
		s.conn, err = New(cfg)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		_ = host.Do(func() error { return s.conn.Run(ctx) }) // which opens sockets
	})
	for leg := range s.conn.Legs() {
		wg.Go(func() {
			if err := s.conn.Receive(ctx, leg, s.take); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return s
}

// take answers data once, as the other side of a connection does.
func (s *labSide) take(now time.Time, trains []datagram.Train) {
	for i := range trains {
		train := &trains[i]
		for data := train.Data; len(data) > 0; data = data[min(train.Size, len(data)):] {
			pkt := data[:min(train.Size, len(data))]
			h, ok := s.conn.PeerByKey(identity.WGKey(pkt[4:36])).(*handle)
			if !ok {
				continue
			}
			h.Authenticated(now, &train.From, len(pkt))
			if pkt[36] == 0 {
				echo := s.data()
				echo[36] = 1
				h.Send(now, [][]byte{echo})
			} else {
				s.got <- string(wayOf(&train.From).kind())
			}
		}
	}
}

// data is a datagram that names its sender.
func (s *labSide) data() []byte {
	wg := s.id.WG()
	return append(append([]byte{wgTransport, 0, 0, 0}, wg[:]...), bytes.Repeat([]byte{0}, 100)...)
}

func (s *labSide) know(peers ...netmap.Peer) { (&side{id: s.id, conn: s.conn}).know(peers...) }

func (s *labSide) entry(endpoints ...netip.AddrPort) netmap.Peer {
	return (&side{id: s.id}).peer(endpoints...)
}

// seenBy waits until another has a direct path here, and returns where it sees us.
func (s *labSide) seenBy(t *testing.T, other *labSide) (at netip.AddrPort) {
	t.Helper()
	s.conn.Contact(other.id.ID())
	eventually(t, "a path to the relay", func() bool {
		info, _ := other.conn.Peer(s.id.ID())
		at = info.Path.Addr
		return info.Path.Kind == PathDirect && !info.Path.LastPong.IsZero()
	})
	return at
}

// TestPredictionThroughNATs has the kernel's NATs between two nodes whose only helper is a member that relays: data goes
// by it at once, and directly when a port was guessed, which fails twice in a hundred times.
func TestPredictionThroughNATs(t *testing.T) {
	lab := netlab.New(t)
	w := lab.Internet()
	public := w.Public("relay")
	hard, easy := w.Site(netlab.Symmetric).Host("a"), w.Site(netlab.PortRestricted).Host("b")
	for run := range byte(3) {
		if predictThroughNATs(t, 10*(run+1), public, hard, easy) {
			return
		}
	}
	t.Fatal("no port was guessed in three runs")
}

func predictThroughNATs(t *testing.T, seed byte, public, hard, easy *netlab.Host) (direct bool) {
	t.Helper()
	relay := newLabSide(t, seed+3, public, Config{MemberRelay: MemberRelay{Serve: true}})
	a, b := newLabSide(t, seed+1, hard, Config{}), newLabSide(t, seed+2, easy, Config{})
	r := relay.entry(netip.AddrPortFrom(public.Card().Addr4(), relay.conn.Port()))
	r.Relays, r.NAT = true, netmap.NATNone
	a.know(b.entry(), r)
	b.know(a.entry(), r)
	relay.know(a.entry(), b.entry())
	a.conn.SetEndpoints([]netip.AddrPort{a.seenBy(t, relay)}, netmap.NATHard)
	b.conn.SetEndpoints([]netip.AddrPort{b.seenBy(t, relay)}, netmap.NATEasy)

	begin := time.Now()
	a.conn.Contact(b.id.ID())
	h := a.conn.PeerByKey(b.id.WG())
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	first := true
	var sent, got, rest int
	for time.Since(begin) < 15*time.Second && rest < 50 {
		select {
		case now := <-ticker.C:
			sent++
			h.Send(now, [][]byte{a.data()})
		case way := <-a.got:
			got++
			if first {
				t.Logf("first answer after %v, %s", time.Since(begin).Round(time.Millisecond), way)
				if took := time.Since(begin); took > 1500*time.Millisecond {
					t.Errorf("the first answer came after %v", took)
				}
				first = false
			}
			if way != string(PathDirect) {
				continue
			}
			if rest++; rest == 1 {
				t.Logf("direct after %v", time.Since(begin).Round(time.Millisecond))
			}
		}
	}
	info, _ := a.conn.Peer(b.id.ID())
	t.Logf("%d sent, %d answered, %d directly; path %s, because %q", sent, got, rest, info.Path.Kind, info.Reason)
	return rest == 50
}
