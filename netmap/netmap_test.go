package netmap

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

var network = Network{
	ID: identity.NetworkID{1, 2, 3}, Name: "town", Suffix: "town.internal",
	Prefix4: netip.MustParsePrefix("100.88.0.0/16"), Prefix6: Prefix6(identity.NetworkID{1, 2, 3}),
}

// peer is the n-th peer of the tests.
func peer(n uint32) Peer {
	var seed identity.Secret
	binary.BigEndian.PutUint32(seed[:], n)
	id := identity.FromSeed(seed)
	name := "host" + string(rune('a'+n%26))
	return Peer{
		ID: id.ID(), Name: name, FQDN: name + "." + network.Suffix, IP4: netip.AddrFrom4([4]byte{100, 88, 1, byte(n)}),
		IP6: IdentityAddr(network.ID, id.ID()), Control: ControlAddr(network.ID, id.ID()), WG: id.WG(), Disco: id.Disco(),
		Roles: []Role{RoleAdmin}, Tags: []string{"web"}, Admitted: time.Unix(1000, 0), Version: "1",
		Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:41820")},
	}
}

// mapOf is a map of some peers, in order; the first is Self.
func mapOf(peers ...Peer) *Map {
	m := &Map{Network: network, Self: peers[0], Peers: slices.Clone(peers[1:]), Keys: []identity.Secret{{5}}}
	slices.SortFunc(m.Peers, func(a, b Peer) int { return a.ID.Compare(b.ID) })
	return m
}

func TestFind(t *testing.T) {
	m := mapOf(peer(0), peer(1), peer(2), peer(3))
	nameless := peer(4)
	nameless.Name, nameless.FQDN, nameless.IP4 = "", "", netip.Addr{}
	m = mapOf(append([]Peer{m.Self, nameless}, m.Peers...)...)
	for n := range uint32(5) {
		p := peer(n)
		names := []string{p.ID.String(), p.IP6.String(), p.Control.String()}
		if n != 4 {
			names = append(names, p.Name, strings.ToUpper(p.Name), p.FQDN, p.FQDN+".", strings.ToUpper(p.FQDN), p.IP4.String())
		}
		for _, name := range names {
			if got := m.ByName(name); got == nil || got.ID != p.ID {
				t.Errorf("%s: %v, want peer %d", name, got, n)
			}
		}
		for _, ip := range []netip.Addr{p.IP6, p.Control} {
			if got := m.ByIP(ip); got == nil || got.ID != p.ID {
				t.Errorf("%s: %v, want peer %d", ip, got, n)
			}
		}
		if got := m.Peer(p.ID); (got != nil) != (n != 0) || got != nil && got.ID != p.ID {
			t.Errorf("peer %d by id: %v", n, got)
		}
	}
	for _, name := range []string{
		"", ".", "nobody", "hostb.", "hostb.other.internal", "hostb.town", "town.internal", "hostb.town.internal..",
		"100.88.9.9", "0.0.0.0", "::", "fe80::1", " hostb", peer(9).ID.String(), peer(1).ID.String()[1:], "ｈostb",
	} {
		if got := m.ByName(name); got != nil {
			t.Errorf("%q is %s", name, got.Name)
		}
	}
	if got := m.ByIP(netip.Addr{}); got != nil {
		t.Errorf("no address is that of %v", got.ID)
	}
	if empty := (&Map{}); empty.ByName("") != nil || empty.ByIP(netip.Addr{}) != nil || empty.Peer(identity.PeerID{}) != nil {
		t.Error("somebody is in an empty map")
	}
}

// changesOf is a change of every field of a peer, by the field's name.
var changesOf = map[string]func(p *Peer){
	"ID":        func(p *Peer) { p.ID[0]++ },
	"Name":      func(p *Peer) { p.Name += "x" },
	"FQDN":      func(p *Peer) { p.FQDN += "x" },
	"IP4":       func(p *Peer) { p.IP4 = p.IP4.Next() },
	"IP6":       func(p *Peer) { p.IP6 = p.IP6.Next() },
	"Control":   func(p *Peer) { p.Control = p.Control.Next() },
	"WG":        func(p *Peer) { p.WG[3]++ },
	"Disco":     func(p *Peer) { p.Disco[3]++ },
	"FloorPSK":  func(p *Peer) { p.FloorPSK[3]++ },
	"Roles":     func(p *Peer) { p.Roles = []Role{RoleRelay} },
	"Tags":      func(p *Peer) { p.Tags = nil },
	"Admitted":  func(p *Peer) { p.Admitted = p.Admitted.Add(1) },
	"Version":   func(p *Peer) { p.Version = "2" },
	"Endpoints": func(p *Peer) { p.Endpoints = append(slices.Clone(p.Endpoints), p.Endpoints[0]) },
	"Homes":     func(p *Peer) { p.Homes = []Home{{Relay: "https://relay.test"}} },
	"NAT":       func(p *Peer) { p.NAT = NATHard },
	"Relays":    func(p *Peer) { p.Relays = !p.Relays },
	"RelayURL":  func(p *Peer) { p.RelayURL = "https://relay.test" },
}

// TestDiffSeesEveryField fails for a field that was added to Peer and forgotten in equal.
func TestDiffSeesEveryField(t *testing.T) {
	for f := range reflect.TypeFor[Peer]().Fields() {
		change := changesOf[f.Name]
		if change == nil {
			t.Errorf("no change of %s is known to this test", f.Name)
			continue
		}
		old, now := mapOf(peer(0), peer(1)), mapOf(peer(0), peer(1))
		if c := Diff(old, now); !c.Empty() {
			t.Fatalf("equal maps differ: %+v", c)
		}
		change(&now.Self)
		if c := Diff(old, now); !c.Self || len(c.Added)+len(c.Changed)+len(c.Removed) > 0 {
			t.Errorf("own %s: %+v", f.Name, c)
		}
		now = mapOf(peer(0), peer(1))
		change(&now.Peers[0])
		c := Diff(old, now)
		if f.Name == "ID" {
			if len(c.Added) != 1 || len(c.Removed) != 1 || len(c.Changed) != 0 || c.Self {
				t.Errorf("another peer: %+v", c)
			}
		} else if len(c.Changed) != 1 || c.Changed[0] != &now.Peers[0] || len(c.Added)+len(c.Removed) > 0 || c.Self {
			t.Errorf("%s of a peer: %+v", f.Name, c)
		}
	}
	for name, change := range map[string]func(m *Map){
		"network": func(m *Map) { m.Network.Name = "other" },
		"keys":    func(m *Map) { m.Keys = append([]identity.Secret{{6}}, m.Keys...) },
	} {
		now := mapOf(peer(0), peer(1))
		if change(now); !Diff(mapOf(peer(0), peer(1)), now).Self {
			t.Errorf("%s: no change is seen", name)
		}
	}
	same := peer(1)
	same.Admitted = same.Admitted.In(time.FixedZone("far", 7200))
	if c := Diff(mapOf(peer(0), peer(1)), mapOf(peer(0), same)); !c.Empty() {
		t.Errorf("the same time in another zone: %+v", c)
	}
	if c := Diff(nil, mapOf(peer(0), peer(1))); !c.Self || len(c.Added) != 1 {
		t.Errorf("the first map: %+v", c)
	}
}

// naive compares by looking everybody up.
func naive(old, now *Map) (added, changed, removed []identity.PeerID) {
	find := func(m *Map, id identity.PeerID) *Peer {
		for i := range m.Peers {
			if m.Peers[i].ID == id {
				return &m.Peers[i]
			}
		}
		return nil
	}
	for i := range now.Peers {
		p := &now.Peers[i]
		switch o := find(old, p.ID); {
		case o == nil:
			added = append(added, p.ID)
		case !reflect.DeepEqual(o, p):
			changed = append(changed, p.ID)
		}
	}
	for i := range old.Peers {
		if find(now, old.Peers[i].ID) == nil {
			removed = append(removed, old.Peers[i].ID)
		}
	}
	return added, changed, removed
}

func idsOf(peers []*Peer) (ids []identity.PeerID) {
	for _, p := range peers {
		ids = append(ids, p.ID)
	}
	return ids
}

func TestDiffIsLikeNaive(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var all []Peer
	for n := range uint32(12) {
		all = append(all, peer(n+1))
	}
	random := func() *Map {
		some := []Peer{peer(0)}
		for _, p := range all {
			if r.IntN(2) == 0 {
				continue
			}
			if r.IntN(3) == 0 {
				p.Version = "other"
			}
			some = append(some, p)
		}
		return mapOf(some...)
	}
	seen := Changes{}
	for range 500 {
		old, now := random(), random()
		c := Diff(old, now)
		added, changed, removed := naive(old, now)
		if !slices.Equal(idsOf(c.Added), added) || !slices.Equal(idsOf(c.Changed), changed) ||
			!slices.Equal(idsOf(c.Removed), removed) || c.Self {
			t.Fatalf("from %v to %v: %+v", old.Peers, now.Peers, c)
		}
		for _, p := range slices.Concat(c.Added, c.Changed) {
			if now.Peer(p.ID) != p {
				t.Fatal("a change does not point into the new map")
			}
		}
		for _, p := range c.Removed {
			if old.Peer(p.ID) != p {
				t.Fatal("a removal does not point into the old map")
			}
		}
		if c.Empty() != (len(added)+len(changed)+len(removed) == 0) {
			t.Fatalf("empty %v: %+v", c.Empty(), c)
		}
		seen.Added, seen.Changed, seen.Removed = append(seen.Added, c.Added...), append(seen.Changed, c.Changed...), append(seen.Removed, c.Removed...)
	}
	if len(seen.Added) == 0 || len(seen.Changed) == 0 || len(seen.Removed) == 0 {
		t.Error("not every kind of change came up")
	}
}

func TestAddresses(t *testing.T) {
	ula := netip.MustParsePrefix("fd00::/8")
	prefixes := map[netip.Prefix]bool{}
	addrs := map[netip.Addr]bool{}
	const networks, peers = 20, 20
	for i := range networks {
		n := Network{ID: identity.NetworkID{byte(i)}, Prefix6: Prefix6(identity.NetworkID{byte(i)}), Prefix4: network.Prefix4}
		prefixes[n.Prefix6] = true
		if n.Prefix6.Bits() != 48 || !ula.Contains(n.Prefix6.Addr()) || n.Prefix6 != n.Prefix6.Masked() {
			t.Errorf("prefix %s", n.Prefix6)
		}
		subnets := []netip.Prefix{n.ServiceSubnet(), n.IdentitySubnet(), n.ControlSubnet()}
		for j, s := range subnets {
			if s.Bits() != 64 || !n.Prefix6.Contains(s.Addr()) || s != s.Masked() {
				t.Errorf("subnet %s of %s", s, n.Prefix6)
			}
			for _, other := range subnets[j+1:] {
				if s.Overlaps(other) {
					t.Errorf("%s and %s overlap", s, other)
				}
			}
		}
		if !n.ServiceSubnet().Contains(n.Service6()) || !strings.HasSuffix(n.Service6().String(), "::53") {
			t.Errorf("resolver %s", n.Service6())
		}
		for j := range uint32(peers) {
			id := peer(j).ID
			ip, control := IdentityAddr(n.ID, id), ControlAddr(n.ID, id)
			addrs[ip], addrs[control] = true, true
			if !n.IdentitySubnet().Contains(ip) || !n.ControlSubnet().Contains(control) {
				t.Errorf("%s and %s in %s", ip, control, n.Prefix6)
			}
			a, b := ip.As16(), control.As16()
			if string(a[8:]) != string(b[8:]) {
				t.Errorf("%s and %s have different host parts", ip, control)
			}
		}
	}
	if len(prefixes) != networks || len(addrs) != 2*networks*peers {
		t.Errorf("%d prefixes of %d, %d addresses of %d", len(prefixes), networks, len(addrs), 2*networks*peers)
	}
	for prefix, want := range map[string]string{
		"100.88.0.0/16": "100.88.0.53", "10.0.0.0/8": "10.0.0.53", "10.9.16.0/20": "10.9.16.53", "100.88.3.7/16": "100.88.0.53",
	} {
		n := Network{Prefix4: netip.MustParsePrefix(prefix)}
		if got := n.Service4(); got != netip.MustParseAddr(want) {
			t.Errorf("resolver of %s: %s, want %s", prefix, got, want)
		}
	}
}

// TestAddressVectors pins addresses: members would not find each other if they changed.
func TestAddressVectors(t *testing.T) {
	id := peer(1).ID
	for what, c := range map[string]struct{ got, want string }{
		"prefix":   {Prefix6(identity.NetworkID{1, 2, 3}).String(), "fdd3:7747:d155::/48"},
		"identity": {IdentityAddr(identity.NetworkID{1, 2, 3}, id).String(), "fdd3:7747:d155:1:2680:73a7:df47:24d"},
		"control":  {ControlAddr(identity.NetworkID{1, 2, 3}, id).String(), "fdd3:7747:d155:2:2680:73a7:df47:24d"},
	} {
		if c.got != c.want {
			t.Errorf("%s %s, want %s", what, c.got, c.want)
		}
	}
}

// BenchmarkFind asks a map of 10 000 for the last of its peers, and for nobody.
func BenchmarkFind(b *testing.B) {
	m := new(Map)
	for i := range 10_000 {
		id := identity.PeerID{byte(i >> 8), byte(i)}
		name := fmt.Sprintf("member-%05d", i)
		m.Peers = append(m.Peers, Peer{
			ID: id, Name: name, FQDN: name + ".town.internal", IP6: IdentityAddr(identity.NetworkID{}, id),
			Control: ControlAddr(identity.NetworkID{}, id),
		})
	}
	last := m.Peers[len(m.Peers)-1]
	for name, find := range map[string]func() *Peer{
		"id":      func() *Peer { return m.Peer(last.ID) },
		"control": func() *Peer { return m.ByIP(last.Control) },
		"name":    func() *Peer { return m.ByName(last.FQDN + ".") },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if find() == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}
