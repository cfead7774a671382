package control

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
)

// TestStepTable names the outcome of every role, state and message.
func TestStepTable(t *testing.T) {
	type key struct {
		r  role
		s  state
		in input
	}
	type outcome struct {
		s   state
		act action
	}
	allowed := map[key]outcome{
		{dialer, stateWait, inInitial}:   {stateConfirm, actFinal},
		{acceptor, stateWait, inInitial}: {stateConfirm, actInitial},
	}
	for _, r := range []role{dialer, acceptor} {
		allowed[key{r, stateConfirm, inFinal}] = outcome{statePeers, actConfirmed}
		allowed[key{r, statePeers, inFacts}] = outcome{stateDone, actFacts}
		allowed[key{r, stateDone, inFacts}] = outcome{stateDone, actFacts}
		allowed[key{r, stateDone, inTraffic}] = outcome{stateDone, actTraffic}
		allowed[key{r, stateDone, inUnknown}] = outcome{stateDone, actNone}
	}
	count := 0
	for r := range roles {
		for s := range states {
			for in := range inputs {
				count++
				want, ok := allowed[key{r, s, in}]
				switch {
				case s == stateClosed:
					want = outcome{stateClosed, actNone}
				case in == inClose:
					want = outcome{stateClosed, actClose}
				case !ok:
					want = outcome{stateClosed, actRefuse}
				}
				gotState, gotAct := step(r, s, in)
				if gotState != want.s || gotAct != want.act {
					t.Errorf("role %d state %d input %d: %d, %d; want %d, %d", r, s, in, gotState, gotAct, want.s, want.act)
				}
			}
		}
	}
	if count != 2*5*6 {
		t.Errorf("%d combinations", count)
	}
}

func TestInputOf(t *testing.T) {
	for _, c := range []struct {
		t    wire.Type
		st   stage
		want input
	}{
		{typeHello, stageInitial, inInitial},
		{typeHello, stageFinal, inFinal},
		{typeHello, 9, inUnknown},
		{typeFacts, 0, inFacts},
		{typePing, 0, inTraffic},
		{typeWant, 0, inTraffic},
		{typeRing, 0, inTraffic},
		{typeClose, 0, inClose},
		{999, 0, inUnknown},
		{1000, 0, inUnknown},
	} {
		if got := inputOf(c.t, c.st); got != c.want {
			t.Errorf("type %d stage %d: %d, want %d", c.t, c.st, got, c.want)
		}
	}
}

func TestBookBackoff(t *testing.T) {
	b, id, now := newBook(), identity.PeerID{1}, time.Unix(1000, 0)
	want := []time.Duration{1000, 1500, 2250, 3375, 5062, 7593, 11390, 17085, 25628, 38443, 57665, 60000, 60000}
	for i, ms := range want {
		b.dialed(now, id, false, 0)
		wait := ms * time.Millisecond
		b.want(id)
		if _, early := b.take(now.Add(wait - 2*time.Millisecond)); early {
			t.Fatalf("after %d failures: dialled before %v", i+1, wait)
		}
		if got, due := b.take(now.Add(wait + 2*time.Millisecond)); !due || got != id {
			t.Fatalf("after %d failures: next dial in %v, want %v", i+1, b.entry(id).next.Sub(now), wait)
		}
	}
	for range 1000 {
		b.dialed(now, id, false, 1)
	}
	if wait := b.entry(id).next.Sub(now); wait < maxBackoff || wait > maxBackoff*6/5 {
		t.Fatalf("after 1000 failures with jitter: %v", wait)
	}
	b.dialed(now, id, true, 0)
	b.want(id)
	if e := b.entry(id); e.place == 0 || e.next.After(now) || e.Failed != 0 || e.LastSuccess != 1000 {
		t.Fatalf("after a success: %+v", e)
	}
}

func TestBookRemembersAndReloads(t *testing.T) {
	b, id, now := newBook(), identity.PeerID{1}, time.Unix(1000, 0)
	for i := range maxGood + 3 {
		b.worked(now, id, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1))
	}
	b.worked(now, id, netip.MustParseAddrPort("127.0.0.1:1"))
	b.worked(now, id, netip.MustParseAddrPort("[fe80::1%eth0]:1"))
	if got := b.addrs(id); len(got) != maxGood || got[0].Addr() != netip.MustParseAddr("192.0.2.10") {
		t.Fatalf("%v", got)
	}
	again := b.file().book()
	if got, want := again.addrs(id), b.addrs(id); !slices.Equal(got, want) {
		t.Fatalf("reloaded %v, want %v", got, want)
	}
	again.forget(id)
	if len(again.addrs(id)) != 0 {
		t.Fatal("forgotten and still there")
	}
}

// TestMeshClock lists who is believed about the time.
func TestMeshClock(t *testing.T) {
	now := released.Add(30 * 24 * time.Hour)
	const year = 365 * 24 * time.Hour
	type sample struct {
		ahead time.Duration
		admin bool
	}
	for _, c := range []struct {
		name    string
		now     time.Time
		base    time.Duration
		samples []sample
		want    time.Duration
	}{
		{"alone", now, 0, nil, 0},
		{"alone, before the release", released.Add(-year), 0, nil, year},
		{"small differences: the median", now, 0, []sample{{time.Second, false}, {3 * time.Second, false}}, time.Second},
		{"one says a year, our clock is plausible", now, 0, []sample{{year, false}}, 0},
		{"two say a year", now, 0, []sample{{year, false}, {year, false}}, 0},
		{"an admin and two others say a year", now, 0, []sample{{year, false}, {year, false}, {year, true}}, year},
		{"three others without an admin", now, 0, []sample{{year, false}, {year, false}, {year, false}}, 0},
		{"our clock is impossible, one says a year", released.Add(-year), 0, []sample{{year + time.Hour, false}}, year + time.Hour},
		{"who let us in said a year", now, year, nil, year},
		{"and the others say so too", now, year, []sample{{year, false}, {year + time.Second, false}}, year},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := newClock(c.base)
			for i, s := range c.samples {
				clock.sample(c.now, identity.PeerID{byte(i + 1)}, s.ahead, s.admin)
			}
			if got := clock.skew(c.now); got != c.want {
				t.Errorf("skew = %v, want %v", got, c.want)
			}
		})
	}
	clock := newClock(0)
	clock.sample(now, identity.PeerID{1}, time.Minute, true)
	if got := clock.skew(now.Add(2 * sampleLife)); got != 0 {
		t.Errorf("a sample of two hours ago still counts: %v", got)
	}
	clock.raise(now, now.Add(year))
	if got := clock.skew(now); got != year {
		t.Errorf("an admin's statement of next year: %v", got)
	}
	if got := clock.skew(now.Add(time.Hour)); got != year {
		t.Errorf("an hour later: %v; the mesh's time stands still", got)
	}
	clock.sample(now, identity.PeerID{1}, time.Second, false)
	if got := clock.skew(now); got != time.Second {
		t.Errorf("a member's clock against a floor that is wrong: %v", got)
	}
	clock = newClock(0)
	clock.sample(now, identity.PeerID{1}, time.Second, true)
	clock.raise(now, now.Add(year))
	if got := clock.skew(now); got != 0 {
		t.Errorf("a statement of next year against a member's clock: %v", got)
	}
}

func settled(time.Time) bool { return false }

func TestEntropyGrowsRare(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	e := newEntropy(now, rng.Float64)
	var waits []string
	last := time.Duration(0)
	for range 8 {
		last = e.at.Sub(now)
		waits = append(waits, fmt.Sprint(last.Round(time.Second)))
		if e.due(e.at.Add(-1), settled) {
			t.Fatal("due too early")
		}
		now = e.at
		if !e.due(now, settled) {
			t.Fatal("not due")
		}
	}
	if last < maxEntropy*3/4 || last > maxEntropy*5/4 {
		t.Fatalf("waits %v", waits)
	}
	e.changed(now)
	after := e.at
	if wait := after.Sub(now); wait > firstEntropy*5/4 {
		t.Fatalf("after a change: %v", wait)
	}
	e.changed(now.Add(time.Second))
	if e.at.After(after) {
		t.Fatal("another change puts it off")
	}
	for e.at.Before(after.Add(time.Hour)) {
		if now = e.at; e.due(now, func(time.Time) bool { return true }) {
			break
		}
	}
	if off := now.Sub(after); off < maxUnsettled || off > maxUnsettled+4*settledAfter {
		t.Fatalf("constant change puts it off by %v", off)
	}
}
