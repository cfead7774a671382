package control

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/netmap"
)

var renew = flag.Bool("update", false, "write testdata/vectors.txt anew")

const relayURL = "https://192.0.2.9:9000#sha256=00ff"

// wide is as much as a node can have to say about where it is.
func wide(urls ...string) *Reachability {
	x := &Reachability{NAT: netmap.NATHard, Relays: true}
	for i := range maxEndpoints + 3 {
		addr := netip.MustParseAddr("2001:db8::").As16()
		addr[15] = byte(i + 1)
		x.Endpoints = append(x.Endpoints, netip.AddrPortFrom(netip.AddrFrom16(addr), 65535))
	}
	for _, u := range urls {
		x.Homes = append(x.Homes, netmap.Home{Relay: u})
	}
	return x
}

func longURL(c string) string {
	return "https://" + strings.Repeat(c, ledger.MaxRelayURL-len("https://"))
}

func signedReach(x *Reachability) *Reach {
	r := newReach(x)
	r.Node, r.Seq, r.Host, r.Port = someone.ID(), 1<<53, [8]byte{1}, 65535
	r.cut()
	return r.sign(someone, network)
}

// TestReachFits: homes and the NAT's kind always fit; of endpoints the first ones, as many as there is room for.
func TestReachFits(t *testing.T) {
	member := netmap.Home{Member: identity.PeerID{7}}
	for _, c := range []struct {
		name      string
		said      *Reachability
		homes     []netmap.Home
		endpoints int
	}{
		{"nothing", &Reachability{}, nil, 0},
		{"no homes", wide(), nil, maxEndpoints},
		{"long relay homes", wide(longURL("a"), longURL("b")), []netmap.Home{{Relay: longURL("a")}, {Relay: longURL("b")}}, 6},
		{"a member and a relay", &Reachability{Homes: []netmap.Home{member, {Relay: relayURL}}}, []netmap.Home{member, {Relay: relayURL}}, 0},
		{"three homes", &Reachability{Homes: []netmap.Home{{Relay: relayURL}, member, {Relay: longURL("a")}}}, []netmap.Home{{Relay: relayURL}, member}, 0},
		{"homes that cannot be told", &Reachability{Homes: []netmap.Home{{}, {Relay: "http://a"}, {Relay: longURL("a") + "a"}, member}}, []netmap.Home{member}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := parseReach(signedReach(c.said).signed, network)
			if err != nil {
				t.Fatal(err)
			}
			if size := len(dcbor.Marshal(r)); size > maxReach {
				t.Errorf("%d bytes", size)
			}
			if got := r.homes(); !slices.Equal(got, c.homes) {
				t.Errorf("homes %v", got)
			}
			if got := r.addrs(); len(got) != c.endpoints || !slices.Equal(got, c.said.Endpoints[:len(got)]) {
				t.Errorf("%d endpoints, want the first %d", len(got), c.endpoints)
			}
			if r.nat() != c.said.NAT || r.Relays != c.said.Relays {
				t.Errorf("NAT %d, relays %v", r.nat(), r.Relays)
			}
		})
	}
}

func TestHomeRefusals(t *testing.T) {
	id := identity.PeerID{7}
	home := func(h ...reachHome) *Reach { return &Reach{Node: someone.ID(), Homes: h} }
	for name, r := range map[string]*Reach{
		"neither":     home(reachHome{}),
		"both":        home(reachHome{Relay: relayURL, Member: &id}),
		"nobody":      home(reachHome{Member: new(identity.PeerID)}),
		"long URL":    home(reachHome{Relay: longURL("a") + "a"}),
		"no URL":      home(reachHome{Relay: "relay.example"}),
		"three homes": home(reachHome{Relay: relayURL}, reachHome{Member: &id}, reachHome{Relay: relayURL + "00"}),
	} {
		if _, err := parseReach(r.sign(someone, network).signed, network); !errors.Is(err, ErrReach) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, url := range []string{"relay.example", longURL("a") + "a"} {
		if _, err := parseCard((&Card{Node: someone.ID(), Relay: url}).sign(someone, network).signed, network); !errors.Is(err, ErrCard) {
			t.Errorf("a card that offers %q: %v", url, err)
		}
	}
	r := (&Reach{Node: someone.ID(), NAT: 200}).sign(someone, network)
	if got, err := parseReach(r.signed, network); err != nil || got.nat() != netmap.NATUnknown {
		t.Errorf("a NAT of a kind to come: %v", err)
	}
}

// TestOlderReaders: what the release before knew of cards and reaches it still finds, and passes the rest on.
func TestOlderReaders(t *testing.T) {
	type oldReach struct {
		Node      identity.PeerID `cbor:"0,keyasint"`
		Seq       uint64          `cbor:"1,keyasint"`
		Endpoints [][]byte        `cbor:"2,keyasint,omitempty"`
		Host      [8]byte         `cbor:"3,keyasint"`
		Port      uint16          `cbor:"4,keyasint"`
	}
	type oldCard struct {
		Node       identity.PeerID   `cbor:"0,keyasint"`
		Seq        uint64            `cbor:"1,keyasint"`
		Name       string            `cbor:"2,keyasint"`
		Boot       [8]byte           `cbor:"3,keyasint"`
		Version    string            `cbor:"4,keyasint"`
		Roles      []string          `cbor:"5,keyasint,omitempty"`
		WG         identity.WGKey    `cbor:"6,keyasint"`
		Disco      identity.DiscoKey `cbor:"7,keyasint"`
		Generation uint32            `cbor:"8,keyasint"`
	}
	var r oldReach
	if err := openSigned(signedReach(wide(relayURL)).signed, maxReach, &r); err != nil || r.Node != someone.ID() || r.Port != 65535 || len(r.Endpoints) == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	var c oldCard
	offer := &Card{Node: someone.ID(), Name: "web", Relay: relayURL, Roles: []string{"relay"}}
	if err := openSigned(offer.sign(someone, network).signed, maxCard, &c); err != nil || c.Name != "web" {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestVectors compares what goes over the wire with testdata/vectors.txt: a format that changes by accident splits
// networks.
func TestVectors(t *testing.T) {
	offer := &Card{
		Node: someone.ID(), Seq: 7, Name: "web", Boot: [8]byte{1}, Version: "1", Roles: []string{"relay"}, WG: someone.WG(),
		Disco: someone.Disco(), Generation: 1, Relay: relayURL,
	}
	all := &Reachability{
		Endpoints: someReach().addrs(), Homes: []netmap.Home{{Relay: relayURL}, {Member: identity.PeerID{7}}},
		NAT: netmap.NATHard, Relays: true,
	}
	var out strings.Builder
	for _, v := range []struct {
		name string
		data []byte
	}{
		{"card", someCard().signed},
		{"card-offer", offer.sign(someone, network).signed},
		{"reach", someReach().signed},
		{"reach-homes", signedReach(all).signed},
	} {
		fmt.Fprintf(&out, "%s %s\n", v.name, hex.EncodeToString(v.data))
	}
	const file = "testdata/vectors.txt"
	if *renew {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// TestReachSpreads: everybody's map has what a node says of its homes and NAT, also its own; an offered relay server
// only as long as an admin allows it, an admin's at once.
func TestReachSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.admit(w.founder), w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("mesh", 5*time.Second, w.meshed)
		homes := []netmap.Home{{Relay: relayURL}, {Member: b.id.ID()}}
		a.mesh.SetReach(Reachability{Homes: homes, NAT: netmap.NATEasy, Relays: true})
		for _, m := range []*member{a, w.founder} {
			if err := m.mesh.SetRelayURL(relayURL); err != nil {
				t.Fatal(err)
			}
		}
		entry := func(at, of *member) *netmap.Peer {
			if at == of {
				return &at.mesh.Map().Self
			}
			return at.mesh.Map().Peer(of.id.ID())
		}
		everywhere := func(cond func(at *member) bool) func() bool {
			return func() bool { return !slices.ContainsFunc(w.members, func(m *member) bool { return !cond(m) }) }
		}
		w.until("all know", 5*time.Second, everywhere(func(at *member) bool {
			p, f := entry(at, a), entry(at, w.founder)
			return slices.Equal(p.Homes, homes) && p.NAT == netmap.NATEasy && p.Relays &&
				f.RelayURL == relayURL && f.HasRole(netmap.RoleRelay) && f.HasRole(netmap.RoleAdmin)
		}))
		counts := func(want bool) func() bool {
			return everywhere(func(at *member) bool {
				p := entry(at, a)
				return p.HasRole(netmap.RoleRelay) == want && (p.RelayURL == relayURL) == want
			})
		}
		time.Sleep(5 * time.Second)
		if !counts(false)() {
			t.Fatal("an offer counts that nobody allowed")
		}
		if err := b.mesh.Approve(a.id.ID(), ledger.OfferRelay, "", true); !errors.Is(err, ErrNotAdmin) {
			t.Errorf("a plain member approves: %v", err)
		}
		offers := func() []Offer {
			for _, x := range b.mesh.Members() {
				if x.ID == a.id.ID() {
					return x.Offers
				}
			}
			return nil
		}
		if got := offers(); !slices.Equal(got, []Offer{{ledger.OfferRelay, relayURL, true, false}}) {
			t.Errorf("offers %v", got)
		}
		for _, allow := range []bool{true, false, true} {
			if err := w.founder.mesh.Approve(a.id.ID(), ledger.OfferRelay, relayURL, allow); err != nil {
				t.Fatal(err)
			}
			w.until(fmt.Sprintf("counts: %v", allow), 5*time.Second, counts(allow))
		}
		if got := offers(); !slices.Equal(got, []Offer{{ledger.OfferRelay, relayURL, true, true}}) {
			t.Errorf("offers %v", got)
		}
		if err := a.mesh.SetRelayURL(""); err != nil {
			t.Fatal(err)
		}
		w.until("withdrawn", 5*time.Second, counts(false))
		if got := offers(); !slices.Equal(got, []Offer{{ledger.OfferRelay, relayURL, false, true}}) {
			t.Errorf("offers %v", got)
		}
		if err := a.mesh.SetRelayURL("relay.example"); !errors.Is(err, ledger.ErrOffer) {
			t.Errorf("no URL: %v", err)
		}
	})
}

// TestReachIsSaidOnce: the same again is no news, also for the map.
func TestReachIsSaidOnce(t *testing.T) {
	m := newCrowd(t, 3).mesh(t, nothing)
	x := Reachability{Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}, Homes: []netmap.Home{{Relay: relayURL}}}
	m.SetReach(x)
	m.rebuild()
	before, seq := m.Map(), m.myReach.Seq
	again := Reachability{Endpoints: slices.Clone(x.Endpoints), Homes: slices.Clone(x.Homes)}
	m.SetReach(again)
	m.rebuild()
	if m.Map() != before || m.myReach.Seq != seq {
		t.Error("the same reach was signed anew")
	}
	x.Homes[0] = netmap.Home{Relay: relayURL + "00"} // the caller's own again
	m.rebuild()
	if got := m.Map().Self.Homes; len(got) != 1 || got[0].Relay != relayURL {
		t.Errorf("homes %v", got)
	}
}
