package discovery

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"github.com/meshnet/meshnet/netmap"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// The kinds of servers: with two addresses and two ports, with two ports, with nothing but itself.
func twoAddrs() *stunServer {
	return &stunServer{addr: ap("203.0.113.1:3478"), other: ap("203.0.113.2:3479"), tells: ap("203.0.113.2:3479")}
}

func twoPorts() *stunServer {
	return &stunServer{addr: ap("203.0.113.5:9000"), other: ap("203.0.113.5:9001"), tells: ap("203.0.113.5:9001")}
}

func plain(n int) *stunServer {
	a := ap(fmt.Sprintf("203.0.113.%d:3478", 10+n))
	return &stunServer{addr: a, other: a, plain: true}
}

var mappings = []Mapping{MappingNone, MappingIndependent, MappingAddress, MappingAddressAndPort}

var filterings = []Filtering{FilteringIndependent, FilteringAddress, FilteringAddressAndPort}

func natOf(m Mapping) netmap.NAT {
	switch m {
	case MappingNone:
		return netmap.NATNone
	case MappingIndependent:
		return netmap.NATEasy
	case "":
		return netmap.NATUnknown
	}
	return netmap.NATHard
}

// Every mapping with every filtering is told right by one RFC 5780 server with two addresses.
func TestEveryNAT(t *testing.T) {
	for _, m := range mappings {
		for _, f := range filterings {
			for _, hairpin := range []bool{true, false} {
				w := &natWorld{mapping: m, filtering: f, hairpin: hairpin, servers: []*stunServer{twoAddrs()}}
				r := w.run(t, true)
				if r.Mapping != m || r.Filtering != f || r.NAT != natOf(m) || !r.UDP || !r.IPv4.IsValid() || r.IPv6.IsValid() {
					t.Errorf("%s/%s: got %s/%s, nat %d: %+v", m, f, r.Mapping, r.Filtering, r.NAT, r)
				}
				switch {
				case m == MappingNone && r.Hairpin != nil:
					t.Errorf("%s: hairpin without a NAT", m)
				case m == MappingIndependent && (r.Hairpin == nil || *r.Hairpin != hairpin):
					t.Errorf("%s/%s: hairpin = %v, want %v", m, f, r.Hairpin, hairpin)
				}
				if r.Took > roundLimit {
					t.Errorf("%s/%s took %v", m, f, r.Took)
				}
			}
		}
	}
}

// What plain servers and servers with two ports only can tell.
func TestPoorServers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		servers []*stunServer
		want    map[Mapping]Mapping
		nat     map[Mapping]netmap.NAT
		filter  map[Filtering]Filtering
	}{
		{
			"one plain",
			[]*stunServer{plain(0)},
			map[Mapping]Mapping{MappingNone: MappingNone},
			map[Mapping]netmap.NAT{MappingNone: netmap.NATNone},
			nil,
		},
		{
			"two plain",
			[]*stunServer{plain(0), plain(1)},
			map[Mapping]Mapping{
				MappingNone: MappingNone, MappingIndependent: MappingIndependent,
				MappingAddress: MappingVarying, MappingAddressAndPort: MappingVarying,
			},
			map[Mapping]netmap.NAT{
				MappingNone: netmap.NATNone, MappingIndependent: netmap.NATEasy,
				MappingAddress: netmap.NATHard, MappingAddressAndPort: netmap.NATHard,
			},
			nil,
		},
		{
			"two ports",
			[]*stunServer{twoPorts()},
			map[Mapping]Mapping{MappingNone: MappingNone, MappingAddressAndPort: MappingAddressAndPort},
			map[Mapping]netmap.NAT{
				MappingNone: netmap.NATNone, MappingIndependent: netmap.NATEasy,
				MappingAddress: netmap.NATEasy, MappingAddressAndPort: netmap.NATHard,
			},
			map[Filtering]Filtering{FilteringAddressAndPort: FilteringAddressAndPort},
		},
		{
			"two ports and a plain one",
			[]*stunServer{plain(0), twoPorts()},
			map[Mapping]Mapping{
				MappingNone: MappingNone, MappingIndependent: MappingIndependent,
				MappingAddress: MappingAddress, MappingAddressAndPort: MappingAddressAndPort,
			},
			map[Mapping]netmap.NAT{
				MappingNone: netmap.NATNone, MappingIndependent: netmap.NATEasy,
				MappingAddress: netmap.NATHard, MappingAddressAndPort: netmap.NATHard,
			},
			map[Filtering]Filtering{FilteringAddressAndPort: FilteringAddressAndPort},
		},
	} {
		for _, m := range mappings {
			for _, f := range filterings {
				w := &natWorld{mapping: m, filtering: f, hairpin: true, servers: tt.servers}
				r := w.run(t, true)
				if r.Mapping != tt.want[m] || r.NAT != tt.nat[m] || r.Filtering != tt.filter[f] {
					t.Errorf("%s: %s/%s: got %q/%q, nat %d", tt.name, m, f, r.Mapping, r.Filtering, r.NAT)
				}
				if m == MappingIndependent && (r.Hairpin == nil || !*r.Hairpin) {
					t.Errorf("%s: %s/%s: no hairpin", tt.name, m, f)
				}
			}
		}
	}
}

// A server with two addresses tells all it can, also when one with two ports answered before it.
func TestBetterServerAnswersLater(t *testing.T) {
	for _, slow := range []time.Duration{latency / 2, 5 * latency, fallbackAfter - 3*latency} {
		for _, m := range mappings {
			for _, f := range filterings {
				better := twoAddrs()
				better.slow = slow
				w := &natWorld{mapping: m, filtering: f, servers: []*stunServer{twoPorts(), better, plain(0)}}
				if r := w.run(t, true); r.Mapping != m || r.Filtering != f || r.Took > roundLimit {
					t.Errorf("%v later: %s/%s: got %q/%q in %v", slow, m, f, r.Mapping, r.Filtering, r.Took)
				}
			}
		}
	}
}

// A server that offers another address but answers from its first one says nothing about filtering.
func TestIgnoredChangeRequest(t *testing.T) {
	s := twoAddrs()
	s.plain = true
	r := (&natWorld{mapping: MappingIndependent, filtering: FilteringIndependent, servers: []*stunServer{s}}).run(t, true)
	if r.Filtering != "" || r.Mapping != MappingIndependent {
		t.Errorf("got %q/%q", r.Mapping, r.Filtering)
	}
}

// Both addresses of one server given as two servers: the second socket still has one that it never sent to.
func TestBothAddressesAsServers(t *testing.T) {
	a := twoAddrs()
	b := &stunServer{addr: a.other, other: a.addr, tells: a.addr}
	for _, f := range filterings {
		r := (&natWorld{mapping: MappingIndependent, filtering: f, servers: []*stunServer{a, b}}).run(t, true)
		if r.Filtering != f || r.Mapping != MappingIndependent {
			t.Errorf("%s: got %q/%q", f, r.Mapping, r.Filtering)
		}
	}
}

// Nobody is made to send packets into a network that the server is not in.
func TestForeignOtherAddress(t *testing.T) {
	for _, to := range []string{"127.0.0.1:22", "192.168.1.1:53", "169.254.0.1:5", "203.0.113.9:3478"} {
		s := twoAddrs()
		s.tells = ap(to)
		w := &natWorld{mapping: MappingIndependent, filtering: FilteringIndependent, servers: []*stunServer{s}}
		r := w.run(t, true)
		if n := w.sent[s.tells]; n != 0 || r.Filtering != "" || !r.UDP {
			t.Errorf("%s: %d packets, report %+v", to, n, r)
		}
	}
}

func TestBlocked(t *testing.T) {
	w := &natWorld{blocked: true, servers: []*stunServer{twoAddrs(), plain(0)}}
	r := w.run(t, true)
	if r.UDP || r.NAT != netmap.NATBlocked || r.IPv4.IsValid() || r.Mapping != "" || r.Filtering != "" || r.Hairpin != nil {
		t.Errorf("got %+v", r)
	}
	if r.Took < serverWait || r.Took > roundLimit {
		t.Errorf("took %v", r.Took)
	}
	for _, s := range r.STUN {
		if s.Err == "" || s.Mapped.IsValid() {
			t.Errorf("server: %+v", s)
		}
	}
	for to, n := range w.sent {
		if n > len(serverTries) {
			t.Errorf("%d packets to %v", n, to)
		}
	}
	if r := (&natWorld{}).run(t, true); r.UDP || r.NAT != netmap.NATUnknown {
		t.Errorf("without servers: %+v", r)
	}
}

func TestRefused(t *testing.T) {
	s := plain(0)
	s.code = stun.CodeUnauthorized
	r := (&natWorld{mapping: MappingIndependent, filtering: FilteringAddress, servers: []*stunServer{s}}).run(t, true)
	if !r.UDP || r.NAT != netmap.NATUnknown || r.STUN[0].Err != "refused with code 401" {
		t.Errorf("got %+v", r)
	}
}

// A server inside our own network sees us untranslated, which tells nothing of the NAT.
func TestInnerServer(t *testing.T) {
	seen := []sighting{
		{ap("192.168.1.9:3478"), mainAddr, time.Millisecond},
		{ap("203.0.113.1:3478"), ap("198.51.100.1:7"), 9 * time.Millisecond},
		{ap("203.0.113.2:3478"), ap("198.51.100.1:7"), 8 * time.Millisecond},
	}
	ours := func(a netip.AddrPort) bool { return a == mainAddr }
	out := outermost(seen, ours)
	if m, n := classify(out, ours); m != MappingIndependent || n != netmap.NATEasy {
		t.Errorf("got %s, %d", m, n)
	}
	if got := quickest(out); got != ap("198.51.100.1:7") {
		t.Errorf("quickest = %v", got)
	}
	if m, n := classify(outermost(seen[:1], ours), ours); m != MappingNone || n != netmap.NATNone {
		t.Errorf("alone: %s, %d", m, n)
	}
}

// With a fifth of all packets lost, a round may learn less, but nothing that is wrong.
func TestLoss(t *testing.T) {
	right := 0
	const rounds = 300
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 0))
		m, f := mappings[rng.IntN(len(mappings))], filterings[rng.IntN(2)]
		w := &natWorld{mapping: m, filtering: f, hairpin: true, servers: []*stunServer{twoAddrs(), plain(0)}}
		w.lose = func(int) bool { return rng.IntN(5) == 0 }
		r := w.run(t, true)
		if r.Mapping == m && r.Filtering == f {
			right++
		}
		if r.Mapping != "" && r.Mapping != m && r.Mapping != MappingVarying {
			t.Errorf("seed %d: mapping %q, is %q", seed, r.Mapping, m)
		}
		if r.NAT != netmap.NATUnknown && r.NAT != natOf(m) {
			t.Errorf("seed %d: nat %d, mapping is %q", seed, r.NAT, m)
		}
	}
	if right < rounds*9/10 {
		t.Errorf("only %d of %d rounds right", right, rounds)
	}
}

// What comes from somewhere else, or twice, or late, or broken, changes nothing.
func TestVerdicts(t *testing.T) {
	now := time.Unix(1000, 0)
	to := ap("203.0.113.1:3478")
	b := NewBehaviour(now, Round{Targets: []Target{{"s", to}}, Second: true})
	sent := b.Tick(now)
	if len(sent) != 1 || sent[0].To != to || sent[0].By != MainSocket {
		t.Fatalf("sent %v", sent)
	}
	id, _, _ := stunID(sent[0].Data)
	good := reply(id, stun.BindingSuccess, xored("198.51.100.1:7"))
	now = now.Add(time.Millisecond)
	for _, tt := range []struct {
		name string
		by   Socket
		from netip.AddrPort
		pkt  []byte
		want Verdict
	}{
		{"no STUN", MainSocket, to, []byte("hello"), Malformed},
		{"another transaction", MainSocket, to, reply(newTxID(), stun.BindingSuccess, xored("192.0.2.1:1")), Unknown},
		{"another address", MainSocket, ap("203.0.113.2:3478"), good, Spoofed},
		{"another port", MainSocket, ap("203.0.113.1:3479"), good, Spoofed},
		{"another socket", SecondSocket, to, good, Spoofed},
		{"our own request", MainSocket, to, sent[0].Data, Spoofed},
		{"another family", MainSocket, to, reply(id, stun.BindingSuccess, xored("[2001:db8::1]:7")), Malformed},
		{"empty", MainSocket, to, reply(id, stun.BindingSuccess), Malformed},
		{"as a mapped IPv6 address", MainSocket, ap("[::ffff:203.0.113.1]:3478"), good, Taken},
		{"twice", MainSocket, to, good, Late},
	} {
		if got := b.Handle(now, tt.by, tt.from, tt.pkt); got != tt.want {
			t.Errorf("%s: verdict %d, want %d", tt.name, got, tt.want)
		}
	}
	r := b.Report(now)
	if len(r.STUN) != 1 || r.STUN[0].Mapped != ap("198.51.100.1:7") || r.STUN[0].Latency != time.Millisecond {
		t.Errorf("report %+v", r.STUN)
	}
}

// An answer to the first of three tries is told from one to the last.
func TestLatencyOfTries(t *testing.T) {
	for nth := range 3 {
		start := time.Unix(1000, 0)
		b := NewBehaviour(start, Round{Targets: []Target{{"s", ap("203.0.113.1:3478")}}})
		var ids []txID
		for _, at := range serverTries[:3] {
			for _, p := range b.Tick(start.Add(at)) {
				id, _, _ := stunID(p.Data)
				ids = append(ids, id)
			}
		}
		if len(ids) != 3 || ids[0] == ids[1] {
			t.Fatalf("tries: %x", ids)
		}
		now := start.Add(400 * time.Millisecond)
		b.Handle(now, MainSocket, ap("203.0.113.1:3478"), reply(ids[nth], stun.BindingSuccess, xored("198.51.100.1:7")))
		if got, want := b.Report(now).STUN[0].Latency, 400*time.Millisecond-serverTries[nth]; got != want {
			t.Errorf("latency %v, want %v", got, want)
		}
	}
}

func FuzzHandle(f *testing.F) {
	_, _, pkts := vectors(f)
	for _, p := range pkts {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		now := time.Unix(1000, 0)
		to := ap("203.0.113.1:3478")
		b := NewBehaviour(now, Round{Targets: []Target{{"s", to}}, Second: true})
		sent := b.Tick(now)
		if len(pkt) >= stunHeader {
			copy(pkt[8:], sent[0].Data[8:stunHeader]) // somebody who knows the transaction
		}
		b.Handle(now, MainSocket, to, pkt)
		for range 100 {
			for _, p := range b.Tick(now) {
				if p.To.Port() == 0 || p.To.Addr().IsMulticast() || p.To.Addr().IsUnspecified() {
					t.Fatalf("a packet to %v", p.To)
				}
			}
			if now = b.Next(); now.IsZero() {
				return
			}
		}
		t.Fatal("the round does not end")
	})
}

// Without a second socket the mapping is told all the same.
func TestOneSocket(t *testing.T) {
	for _, m := range mappings {
		w := &natWorld{mapping: m, filtering: FilteringIndependent, hairpin: true, servers: []*stunServer{plain(0), twoAddrs()}}
		if r := w.run(t, false); r.Mapping != m || r.Filtering != "" || r.Hairpin != nil {
			t.Errorf("%s: got %q/%q, hairpin %v", m, r.Mapping, r.Filtering, r.Hairpin)
		}
	}
}
