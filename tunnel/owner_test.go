package tunnel

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// fakeEngine remembers what it was told, on the clock of the test.
type fakeEngine struct {
	now        time.Time
	peers      map[identity.WGKey]sample
	tries      []time.Duration // since start
	start      time.Time
	psk        identity.Secret
	allowed    []netip.Prefix
	onTry      func(identity.WGKey)
	configured int
}

func (e *fakeEngine) configure(s *PeerSession) error {
	e.configured++
	e.psk, e.allowed = s.PSK, s.AllowedIPs
	if _, ok := e.peers[s.WG]; !ok {
		e.peers[s.WG] = sample{}
	}
	return nil
}

func (e *fakeEngine) setPSK(_ identity.WGKey, psk identity.Secret) error {
	e.psk = psk
	return nil
}
func (e *fakeEngine) remove(k identity.WGKey) { delete(e.peers, k) }
func (e *fakeEngine) initiate(k identity.WGKey) {
	e.tries = append(e.tries, e.now.Sub(e.start))
	if e.onTry != nil {
		e.onTry(k)
	}
}
func (e *fakeEngine) sample() (map[identity.WGKey]sample, error) { return e.peers, nil }

type ownerTest struct {
	answering time.Time
	*owner
	e     *fakeEngine
	table *table
	id    *identity.Identity
	stats map[identity.PeerID]PeerStats
}

func newOwnerTest() *ownerTest {
	start := time.Unix(1_000_000, 0)
	e := &fakeEngine{now: start, start: start, peers: make(map[identity.WGKey]sample)}
	var c counters
	o := &ownerTest{e: e, id: seeded(2)}
	o.owner = &owner{
		engine: e, lot: newLot(&c, newQueue(nil)), counters: &c, log: slog.New(slog.DiscardHandler),
		clock:    func() time.Time { return e.now },
		answers:  func(identity.PeerID) bool { return e.now.Before(o.answering) },
		lookup:   func(id identity.PeerID) *peer { return o.table.byID[id] },
		publish:  func(m map[identity.PeerID]PeerStats) { o.stats = m },
		sessions: make(map[identity.PeerID]*session),
	}
	o.members("100.77.1.2")
	return o
}

func (o *ownerTest) members(ip string) {
	old := o.table
	if old == nil {
		old = &table{}
	}
	o.table, _, _ = old.next([]Member{{ID: o.id.ID(), WG: o.id.WG(), IPs: []netip.Addr{netip.MustParseAddr(ip)}}})
}

func (o *ownerTest) session(initiate bool) PeerSession {
	return PeerSession{ID: o.id.ID(), WG: o.id.WG(), PSK: testPSK, Initiate: initiate}
}

// run moves the clock to every deadline until end.
func (o *ownerTest) run(d time.Duration) {
	end := o.e.now.Add(d)
	for {
		next := o.tick()
		if next.IsZero() || next.After(end) {
			o.e.now = end
			return
		}
		o.e.now = next
	}
}

func TestRetrySchedule(t *testing.T) {
	ms := time.Millisecond
	for _, tt := range []struct {
		name   string
		answer int // the try that completes the handshake; 0: none
		want   []time.Duration
	}{
		{"nobody answers", 0, []time.Duration{0, 250 * ms, 500 * ms, 1000 * ms, 2000 * ms}},
		{"first", 1, []time.Duration{0}},
		{"third", 3, []time.Duration{0, 250 * ms, 500 * ms}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOwnerTest()
			o.e.onTry = func(k identity.WGKey) {
				if len(o.e.tries) == tt.answer {
					o.e.peers[k] = sample{handshake: o.e.now.Add(time.Millisecond)}
				}
			}
			o.install(o.session(true))
			o.run(100 * ms)
			o.install(o.session(true)) // contact again: the series goes on unchanged
			o.run(30 * time.Second)
			if !slices.Equal(o.e.tries, tt.want) {
				t.Errorf("tries at %v, want %v", o.e.tries, tt.want)
			}
			if live := o.table.byID[o.id.ID()].state.Load() == open; live != (tt.answer > 0) {
				t.Errorf("open = %v", live)
			}
		})
	}
}

// TestReleasedPacketsInitiate lets the device send the first initiation, for the packets that waited: ours keep their
// distance, for both sides.
func TestReleasedPacketsInitiate(t *testing.T) {
	for _, tt := range []struct {
		name     string
		initiate bool
		want     []time.Duration
	}{
		{"we initiate", true, []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond, 1250 * time.Millisecond, 2250 * time.Millisecond}},
		{"the other side initiates", false, []time.Duration{600 * time.Millisecond, 850 * time.Millisecond, 1100 * time.Millisecond, 1600 * time.Millisecond, 2600 * time.Millisecond}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOwnerTest()
			o.lot.keep(o.table.byID[o.id.ID()], make([]byte, 40), o.e.now)
			o.install(o.session(false)) // contact: packets are released
			o.run(20 * time.Millisecond)
			if tt.initiate {
				o.install(o.session(true)) // the other side is ready
			}
			o.run(30 * time.Second)
			if !slices.Equal(o.e.tries, tt.want) {
				t.Errorf("tries at %v, want %v", o.e.tries, tt.want)
			}
		})
	}
}

// TestExpiredSessionIsNotLive completes a handshake just before a try ends its session: the series goes on.
func TestExpiredSessionIsNotLive(t *testing.T) {
	o := newOwnerTest()
	o.e.onTry = func(k identity.WGKey) {
		if len(o.e.tries) == 1 { // the answer to an earlier initiation came a moment before
			o.e.peers[k] = sample{handshake: o.e.now.Add(-time.Microsecond)}
		}
		if len(o.e.tries) == 2 {
			o.e.peers[k] = sample{handshake: o.e.now.Add(time.Millisecond)}
		}
	}
	o.install(o.session(true))
	o.run(30 * time.Second)
	if want := []time.Duration{0, 250 * time.Millisecond}; !slices.Equal(o.e.tries, want) {
		t.Errorf("tries at %v, want %v", o.e.tries, want)
	}
}

// TestAnsweringIsNotInterrupted postpones our tries while the other side's initiation is being answered.
func TestAnsweringIsNotInterrupted(t *testing.T) {
	o := newOwnerTest()
	o.answering = o.e.now.Add(600 * time.Millisecond)
	o.install(o.session(true))
	o.run(30 * time.Second)
	if len(o.e.tries) != len(handshakeOffsets) || o.e.tries[0] != 750*time.Millisecond {
		t.Errorf("tries at %v, the first should be after 750ms", o.e.tries)
	}
}

func TestTriesKeepTheirDistance(t *testing.T) {
	o := newOwnerTest()
	o.install(o.session(true))
	for range 5 {
		o.e.now = o.e.now.Add(time.Millisecond)
		o.reset(o.id.ID())
		o.tick()
	}
	o.run(200 * time.Millisecond)
	if len(o.e.tries) != 2 || o.e.tries[1]-o.e.tries[0] < tryGap {
		t.Errorf("tries at %v", o.e.tries)
	}
}

func TestIdlePeerLeaves(t *testing.T) {
	o := newOwnerTest()
	o.install(o.session(false))
	key := o.id.WG()
	o.e.peers[key] = sample{handshake: o.e.now, rx: 100}
	o.run(100 * time.Second)
	o.e.peers[key] = sample{handshake: o.e.start, rx: 200} // a packet, 100 s later
	o.run(170 * time.Second)
	if !o.stats[o.id.ID()].Installed {
		t.Fatal("left too early")
	}
	o.run(30 * time.Second)
	if got := o.stats[o.id.ID()]; got.Installed || got.RxBytes != 200 {
		t.Errorf("after its time: %+v", got)
	}
	if len(o.e.peers) != 0 || o.table.byID[o.id.ID()].state.Load() != parked {
		t.Error("still in the device")
	}
	if next := o.tick(); !next.IsZero() {
		t.Error("a timer without a peer")
	}
	o.install(o.session(false))
	o.e.peers[key] = sample{rx: 5}
	o.refresh(o.e.now)
	if got := o.stats[o.id.ID()]; !got.Installed || got.RxBytes != 205 {
		t.Errorf("when it is back: %+v", got)
	}
}

func TestInstallTouchesOnlyWhatDiffers(t *testing.T) {
	o := newOwnerTest()
	o.install(o.session(false))
	p := o.session(false)
	o.install(p)
	p.PSK = identity.Secret{1}
	o.install(p)
	if o.e.configured != 1 || o.e.psk != p.PSK {
		t.Errorf("configured %d times, psk set: %v", o.e.configured, o.e.psk == p.PSK)
	}
	o.members("100.77.1.9")
	o.memberChanged(o.id.ID())
	if want := netip.MustParsePrefix("100.77.1.9/32"); len(o.e.allowed) != 1 || o.e.allowed[0] != want {
		t.Errorf("allowed %v", o.e.allowed)
	}
	if len(o.e.tries) != 0 {
		t.Error("initiated without being told to")
	}
}

func TestSampleParser(t *testing.T) {
	key := seeded(1).WG()
	text := "private_key=00\nlisten_port=1\npublic_key=" + key.Hex() +
		"\nlast_handshake_time_sec=5\nlast_handshake_time_nsec=6\ntx_bytes=7\nrx_bytes=8\nallowed_ip=1.2.3.4/32\n"
	got, err := parseSamples(text)
	if want := (sample{time.Unix(5, 6), 8, 7}); err != nil || len(got) != 1 || got[key] != want {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"public_key=00", "public_key=" + key.Hex() + "\nrx_bytes=x"} {
		if _, err := parseSamples(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
