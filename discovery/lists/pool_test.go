package lists

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// host is a target with n addresses.
func host(k kind, name string, n int) *target {
	t := newTarget(k, Entry{Host: name, Port: 7})
	for i := range n {
		t.addrs = append(t.addrs, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(len(name)), byte(i >> 8), byte(i)}), 7))
	}
	return t
}

// All have their turn: after as many rounds as it takes, each was handed out once before any was a third time.
func TestDrawTurns(t *testing.T) {
	all := []*target{host(kindFile, "a", 3), host(kindFile, "bb", 200), host(kindFile, "ccc", 1)}
	for i := range 100 {
		e, err := ParseEntry(fmt.Sprintf("10.9.0.%d:7", i))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, newTarget(kindFile, e))
	}
	p := pool{share: 32}
	now := time.Unix(1000, 0)
	turns := make(map[netip.AddrPort]int)
	for round := range 30 {
		p.begin(all)
		asked := make(map[netip.AddrPort]bool)
		per := make(map[byte]int)
		for _, x := range all {
			x.given = 0
			x.check(now, func(netip.AddrPort) error { return nil })
		}
		items := p.draw(now, all, asked)
		if len(items) != 32 {
			t.Fatalf("round %d: %d addresses", round, len(items))
		}
		for _, it := range items {
			b := it.addr.Addr().As4()[1]
			if b != 9 && it.due.Sub(now) != time.Duration(per[b])*otherDelay {
				t.Errorf("round %d: the address %d of a name is due after %v", round, per[b], it.due.Sub(now))
			}
			turns[it.addr]++
			per[b]++
		}
		if per[2] > perTarget {
			t.Fatalf("round %d: %d of a name", round, per[2])
		}
		if again := p.draw(now, all, asked); again != nil {
			t.Fatalf("round %d: %d more than its share", round, len(again))
		}
	}
	for _, x := range all {
		for _, a := range x.addrs {
			if turns[a] == 0 {
				t.Fatalf("%v had no turn in 30 rounds: %v", a, turns)
			}
		}
	}
}

// New addresses do not push out the old ones: they begin with as many turns as the least of those had.
func TestDrawNew(t *testing.T) {
	old := host(kindList, "old", 8)
	p := pool{share: 8}
	now := time.Unix(1000, 0)
	seen := 0
	for round := range 20 {
		all := []*target{old, host(kindList, fmt.Sprintf("%*d", round+4, 0), 8)} // another poisoned one each time
		p.begin(all)
		for _, x := range all {
			x.given = 0
			x.check(now, func(netip.AddrPort) error { return nil })
		}
		for _, it := range p.draw(now, all, make(map[netip.AddrPort]bool)) {
			if it.addr.Addr().As4()[1] == 3 {
				seen++
			}
		}
	}
	if seen < 60 {
		t.Errorf("old addresses had %d of 160 turns, want about half", seen)
	}
}

func TestShares(t *testing.T) {
	name, literal := host(kindStatic, "x", 0), newTarget(kindStatic, Entry{Addr: netip.IPv6Loopback(), Port: 7})
	many := make([]*target, 20)
	for i := range many {
		many[i] = name
	}
	for _, tt := range []struct {
		static     []*target
		file, list bool
		want       [3]int
	}{
		{[]*target{name, literal}, false, false, [3]int{9, 0, 0}},
		{many, false, false, [3]int{64, 0, 0}},
		{many, true, false, [3]int{48, 16, 0}},
		{many, true, true, [3]int{48, 8, 8}},
		{[]*target{literal}, true, true, [3]int{1, 31, 32}},
		{nil, false, true, [3]int{0, 0, 64}},
	} {
		s, f, l := shares(tt.static, tt.file, tt.list)
		if got := [3]int{s, f, l}; got != tt.want {
			t.Errorf("%d entries, file %v, list %v: %v, want %v", len(tt.static), tt.file, tt.list, got, tt.want)
		}
	}
}

func TestPacer(t *testing.T) {
	var p pacer
	now := time.Unix(1000, 0)
	var went []time.Time
	for len(went) < 200 {
		if p.next().After(now) {
			now = p.next()
		}
		p.take(now)
		went = append(went, now)
		now = now.Add(7 * time.Millisecond)
	}
	for i := perSecond; i < len(went); i++ {
		if d := went[i].Sub(went[i-perSecond]); d < time.Second {
			t.Fatalf("%d in %v", perSecond+1, d)
		}
	}
	if d := went[199].Sub(went[0]); d > 10*time.Second {
		t.Errorf("200 took %v", d)
	}
}

func TestUsable(t *testing.T) {
	for _, tt := range []struct {
		addr          string
		list, literal bool
	}{
		{"192.0.2.1:7", true, true},
		{"10.0.0.1:7", true, true},
		{"[2001:db8::1]:7", true, true},
		{"[fd00::1]:7", true, true},
		{"192.0.2.1:0", false, false},
		{"0.0.0.0:7", false, false},
		{"0.1.2.3:7", false, false},
		{"[::]:7", false, false},
		{"224.0.0.251:7", false, false},
		{"[ff02::fb]:7", false, false},
		{"240.0.0.1:7", false, false},
		{"255.255.255.255:7", false, false},
		{"127.0.0.1:7", false, true},
		{"127.1.2.3:7", false, true},
		{"[::1]:7", false, true},
		{"169.254.1.1:7", false, true},
		{"[fe80::1]:7", false, false},
		{"[fe80::1%eth0]:7", false, true},
	} {
		if got := usable(ap(tt.addr), false) == nil; got != tt.list {
			t.Errorf("%s in a list: usable %v", tt.addr, got)
		}
		if got := usable(ap(tt.addr), true) == nil; got != tt.literal {
			t.Errorf("%s of the user's: usable %v", tt.addr, got)
		}
	}
	if usable(netip.AddrPort{}, true) == nil {
		t.Error("no address is usable")
	}
}

// What a full file and a full DNS list cost in a round: 1280 addresses, of which 64 are handed out.
func BenchmarkRound(b *testing.B) {
	r := newLoop(New(Config{File: "f", DNS: "example.org", Found: func([]netip.AddrPort, string) {}}))
	r.file.busy, r.list.halves[0].busy, r.list.halves[1].busy = true, true, true
	var entries []Entry
	for i := range maxEntries {
		entries = append(entries, Entry{Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), Port: 7})
	}
	r.file.targets = keep(kindFile, nil, entries)
	var a answer
	for i := range maxRecords {
		a.records = append(a.records, record{Entry: Entry{Addr: netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}), Port: 7}})
	}
	now := time.Unix(1000, 0)
	r.list.took(now, &r.list.halves[1], a, nil)
	r.lacking = true
	b.ReportAllocs()
	for b.Loop() {
		r.queue = r.queue[:0]
		r.round(now)
	}
	if len(r.queue) != perRound {
		b.Fatalf("%d addresses", len(r.queue))
	}
}
