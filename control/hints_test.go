package control

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/internal/safefile"
	"github.com/meshnet/meshnet/netmap"
)

func addrPorts(all ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range all {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

func TestPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"203.0.113.7": true, "2001:db8::1": true, "::ffff:203.0.113.7": true,
		"10.1.2.3": false, "192.168.1.1": false, "172.16.0.1": false, "100.64.0.1": false, "169.254.1.1": false, "127.0.0.1": false,
		"fd00::1": false, "fe80::1": false, "::1": false, "ff02::1": false, "::ffff:10.0.0.1": false, "0.0.0.0": false,
	} {
		if got := public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// TestHints chooses among what there is for a token of a node with another member in session.
func TestHints(t *testing.T) {
	const lan, lan2, outside, outside6, there, gone = "192.168.1.2:1", "10.0.0.2:1", "203.0.113.7:1", "[2001:db8::7]:1", "203.0.113.8:1", "203.0.113.9:1"
	relays := []netmap.Home{{Relay: relayURL}, {Relay: "https://relay.example"}}
	for _, c := range []struct {
		name   string
		own    Reachability
		other  *Reachability // nil: nobody is in session
		worked string        // where the other answered
		want   []string      // a hint of the other begins with *
	}{
		{"nothing known", Reachability{}, nil, "", nil},
		{"local network only", Reachability{Endpoints: addrPorts(lan, lan2)}, nil, "", []string{lan, lan2}},
		{"local network and a member", Reachability{Endpoints: addrPorts(lan, lan2)}, &Reachability{}, "192.168.1.9:1", []string{"*192.168.1.9:1", lan, lan2}},
		{"the best public ones first", Reachability{Endpoints: addrPorts(lan, outside, outside6, lan2)}, nil, "", []string{outside, lan, outside6, lan2}},
		{"own relay homes", Reachability{Endpoints: addrPorts(outside, lan), Homes: relays}, nil, "", []string{outside, relayURL, lan, "https://relay.example"}},
		{
			"the other by relay",
			Reachability{Endpoints: addrPorts(outside, outside6, lan), Homes: relays},
			&Reachability{Homes: relays[1:], Endpoints: addrPorts(there)}, "192.168.1.9:1",
			[]string{outside, relayURL, "*https://relay.example", lan},
		},
		{"the other is public", Reachability{Endpoints: addrPorts(lan)}, &Reachability{Endpoints: addrPorts(there), NAT: netmap.NATNone}, "192.168.1.9:1", []string{"*" + there, lan}},
		{"the other behind a NAT", Reachability{Endpoints: addrPorts(lan)}, &Reachability{Endpoints: addrPorts(there), NAT: netmap.NATHard}, gone, []string{"*" + gone, lan}},
		{"member homes are no addresses", Reachability{Homes: []netmap.Home{{Member: someone.ID()}}}, nil, "", nil},
		{"many", Reachability{Endpoints: addrPorts(lan, lan2, "10.0.0.3:1", "10.0.0.4:1", "10.0.0.5:1")}, nil, "", []string{lan, lan2, "10.0.0.3:1", "10.0.0.4:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			crowd := newCrowd(t, 2)
			m := crowd.mesh(t, nothing)
			other := crowd.ids[0]
			m.SetReach(c.own)
			if c.other != nil {
				r := newReach(c.other)
				r.Node, r.Seq = other.ID(), 5
				m.reaches[other.ID()] = r.sign(other, m.network.ID)
				m.touch(other.ID(), time.Now())
				m.sessions[other.ID()] = m.newSession(other.ID(), dialer, nil)
				m.sessions[other.ID()].done = true
			}
			if c.worked != "" {
				m.book.worked(time.Now(), other.ID(), netip.MustParseAddrPort(c.worked))
			}
			token, err := m.NewInvite(nil, time.Hour, 1)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, h := range token.Hints {
				name := h.Addr
				switch h.Node {
				case other.ID():
					name = "*" + name
				case m.self.ID():
				default:
					t.Errorf("a hint to %s", h.Node.Short())
				}
				got = append(got, name)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
			if again, err := ledger.ParseToken(token.String()); err != nil || !slices.Equal(again.Hints, token.Hints) {
				t.Errorf("the token does not come back: %v", err)
			}
		})
	}
}

// TestTokenFits: a token stays within its bounds: hints go first, the least useful ones first, then the pass.
func TestTokenFits(t *testing.T) {
	tags := func(n int) []string { return slices.Repeat([]string{strings.Repeat("t", 60)}, n) }
	for _, c := range []struct {
		name  string
		tags  []string
		pass  int
		hints int
		left  int // of the pass
	}{
		{"usual", nil, 200, 4, 200},
		{"all of the longest", nil, ledger.MaxPass, 4, ledger.MaxPass},
		{"tags", tags(6), 100, 3, 100},
		{"many tags", tags(10), 100, 1, 100},
		{"more tags", tags(12), 150, 0, 0},
		{"a pass that nobody could read", nil, ledger.MaxPass + 1, 4, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newCrowd(t, 2).mesh(t, nothing)
			var until time.Time
			m.cfg.RelayPass = func(expires time.Time) []byte {
				until = expires
				return make([]byte, c.pass)
			}
			url := func(c string) netmap.Home { return netmap.Home{Relay: longURL(c)} }
			x := Reachability{Endpoints: addrPorts("203.0.113.7:41820", "192.168.1.2:41820"), Homes: []netmap.Home{{Relay: relayURL}, {Relay: relayURL + "00"}}}
			if c.name != "usual" {
				x.Homes = []netmap.Home{url("a"), url("b")}
			}
			m.SetReach(x)
			m.rebuild()
			before := m.MeshTime()
			token, err := m.NewInvite(c.tags, time.Hour, 1)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d characters, %d hints, a pass of %d bytes", len(token.String()), len(token.Hints), len(token.RelayPass))
			if len(token.Hints) != c.hints || len(token.RelayPass) != c.left || len(token.String()) > ledger.MaxToken {
				t.Errorf("%d hints, pass of %d", len(token.Hints), len(token.RelayPass))
			}
			if d := until.Sub(before); d < time.Hour || d > time.Hour+time.Minute {
				t.Errorf("the pass is good for %v", d)
			}
		})
	}
}

// TestPassOnlyForRelays: without anybody whom a relay server leads to there is no pass; an invite for ever has one for ever.
func TestPassOnlyForRelays(t *testing.T) {
	m := newCrowd(t, 2).mesh(t, nothing)
	asked := 0
	m.cfg.RelayPass = func(expires time.Time) []byte {
		if asked++; !expires.IsZero() {
			t.Errorf("until %v", expires)
		}
		return []byte("pass")
	}
	if token, err := m.NewInvite(nil, 0, 1); err != nil || token.RelayPass != nil || asked != 0 {
		t.Errorf("pass %q, %v", token.RelayPass, err)
	}
	m.SetReach(Reachability{Homes: []netmap.Home{{Relay: relayURL}}})
	if token, err := m.NewInvite(nil, 0, 1); err != nil || string(token.RelayPass) != "pass" {
		t.Errorf("pass %q, %v", token.RelayPass, err)
	}
	if _, err := m.NewInvite([]string{"no tag!"}, 0, 1); err == nil || asked != 1 {
		t.Errorf("%v, %d passes", err, asked)
	}
}

func TestContactable(t *testing.T) {
	relay, member := []netmap.Home{{Relay: relayURL}}, []netmap.Home{{Member: someone.ID()}}
	for _, c := range []struct {
		name string
		x    Reachability
		want bool
	}{
		{"nothing known", Reachability{}, false},
		{"local addresses", Reachability{Endpoints: addrPorts("192.168.1.2:1", "[fe80::1]:1", "100.64.3.4:1")}, false},
		{"public, NAT not known", Reachability{Endpoints: addrPorts("192.168.1.2:1", "203.0.113.7:1")}, true},
		{"public without a NAT", Reachability{Endpoints: addrPorts("[2001:db8::7]:1"), NAT: netmap.NATNone}, true},
		{"behind an easy NAT", Reachability{Endpoints: addrPorts("203.0.113.7:1"), NAT: netmap.NATEasy}, false},
		{"behind a hard NAT", Reachability{Endpoints: addrPorts("203.0.113.7:1"), NAT: netmap.NATHard}, false},
		{"blocked", Reachability{NAT: netmap.NATBlocked}, false},
		{"blocked with a relay", Reachability{NAT: netmap.NATBlocked, Homes: relay}, true},
		{"a member as home", Reachability{NAT: netmap.NATEasy, Homes: member}, false},
	} {
		crowd := newCrowd(t, 3)
		m := crowd.mesh(t, nothing) // all others are on local addresses
		m.SetReach(c.x)
		m.rebuild()
		if self, others := m.Contactable(); self != c.want || others {
			t.Errorf("%s: %v, %v", c.name, self, others)
		}
		m.SetReach(Reachability{})
		r := newReach(&c.x)
		r.Node, r.Seq = crowd.ids[1].ID(), 5
		m.reaches[r.Node] = r.sign(crowd.ids[1], m.network.ID)
		m.touch(r.Node, time.Now())
		m.rebuild()
		if self, others := m.Contactable(); self || others != c.want {
			t.Errorf("another member, %s: %v, %v", c.name, self, others)
		}
		if err := m.RevokeMember(r.Node, false); err != nil {
			t.Fatal(err)
		}
		m.rebuild()
		if _, others := m.Contactable(); others {
			t.Errorf("%s: a revoked member counts", c.name)
		}
	}
	m := newCrowd(t, 2).mesh(t, nothing)
	if err := m.SetRelayURL(relayURL); err != nil {
		t.Fatal(err)
	}
	m.rebuild()
	if self, _ := m.Contactable(); !self {
		t.Error("a relay server itself is not contactable")
	}
}

// TestRelayOnlyIsDialled: who has no endpoint at all has its turn like others.
func TestRelayOnlyIsDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		if p := w.founder.mesh.Map().Peer(a.id.ID()); len(p.Endpoints) != 0 {
			t.Fatalf("endpoints %v: the test proves nothing", p.Endpoints)
		}
		if w.founder.count("dials")+a.count("dials") == 0 {
			t.Error("nobody dialled")
		}
	})
}

// TestGoodEndpointsOutlastRestarts: where a member answered comes first, also in the first map after a restart; no more
// are kept than that many.
func TestGoodEndpointsOutlastRestarts(t *testing.T) {
	path := t.TempDir()
	crowd := newCrowd(t, 2)
	open := func() *Mesh {
		t.Helper()
		dir, err := safefile.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		store, err := OpenStore(dir, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		if _, exists := store.Exists(); !exists {
			network := *crowd.store.network
			if err := store.begin(&network, crowd.store.facts); err != nil {
				t.Fatal(err)
			}
		}
		crowd.store = store
		return crowd.mesh(t, nothing)
	}
	id := crowd.ids[0].ID()
	m := open()
	said := m.Map().Peer(id).Endpoints
	if len(said) != 1 {
		t.Fatalf("endpoints %v", said)
	}
	for i := range 3 * maxGood {
		m.PathWorks(id, netip.MustParseAddrPort(fmt.Sprintf("203.0.113.%d:1", i+1)))
	}
	if err := m.saveBook(); err != nil {
		t.Fatal(err)
	}
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
	m = open()
	got := m.Map().Peer(id).Endpoints
	if len(got) != maxGood+1 || got[maxGood] != said[0] {
		t.Fatalf("endpoints %v", got)
	}
	for i := range 3 * maxGood {
		if last := netip.MustParseAddrPort(fmt.Sprintf("203.0.113.%d:1", i+1)); slices.Contains(got, last) != (i >= 2*maxGood) {
			t.Errorf("%v: kept %v", last, slices.Contains(got, last))
		}
	}
}

// TestNudgeOfStranger: the book remembers members only.
func TestNudgeOfStranger(t *testing.T) {
	m := newCrowd(t, 2).mesh(t, nothing)
	before := len(m.book.entries)
	m.Nudge(someone.ID())
	m.PathWorks(someone.ID(), netip.MustParseAddrPort("203.0.113.7:1"))
	m.hear()
	if len(m.book.entries) != before {
		t.Error("a stranger is in the address book")
	}
}

// TestCounters: what is counted is named in the documentation of Counters, and moves.
func TestCounters(t *testing.T) {
	m := newCrowd(t, 2).mesh(t, nothing)
	for range introQueue + 3 { // nobody takes them: Run does not run
		m.HandleRendezvous(datagram.Place{Addr: netip.MustParseAddrPort("192.0.2.1:1")}, bytes.Repeat([]byte{1}, 10))
	}
	if got := m.Counters()["intros_dropped"]; got != 3 {
		t.Errorf("%d dropped, want 3", got)
	}
	if _, err := New(Config{Identity: someone, Store: m.store, RelayURL: "relay.example"}); !errors.Is(err, ledger.ErrOffer) {
		t.Errorf("a URL of nothing: %v", err)
	}
}

// TestAddressed: an Intro goes only to addresses that somebody can be at.
func TestAddressed(t *testing.T) {
	m := newCrowd(t, 2).mesh(t, nothing)
	good := []string{"203.0.113.7:1", "192.168.1.2:41820", "[2001:db8::1]:7", "127.0.0.1:7"}
	bad := []string{
		"0.0.0.0:1", "0.1.2.3:1", "203.0.113.7:0", "224.0.0.1:7", "240.0.0.1:7", "255.255.255.255:7", "[::]:7", "[ff02::1]:7",
		netip.AddrPortFrom(m.network.Prefix4.Addr().Next(), 7).String(), netip.AddrPortFrom(m.network.Prefix6.Addr().Next(), 7).String(),
	}
	all := append(addrPorts(good...), addrPorts(bad...)...)
	got := m.addressed(append(all, netip.AddrPort{}))
	if len(got) != len(good) {
		t.Fatalf("%v", got)
	}
	for i, p := range got {
		if p.Addr.String() != good[i] {
			t.Errorf("%v, want %s", p.Addr, good[i])
		}
	}
}
