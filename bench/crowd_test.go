package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/internal/safefile"
)

// What is made up is a network to the packages that nodes run: everything in the folder is read, and holds.
func TestCrowd(t *testing.T) {
	const members, active = 250, 20
	c, err := newCrowd(members, active, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	if err := c.write(path, time.Now()); err != nil {
		t.Fatal(err)
	}
	dir, err := safefile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	store, err := control.OpenStore(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	mesh, err := control.New(control.Config{Identity: c.founder, Store: store, Name: "node"})
	if err != nil {
		t.Fatal(err)
	}
	m := mesh.Map()
	if len(store.Notes()) > 0 || m.Network.ID != c.network || m.Self.IP4 != c.inner || len(m.Peers) != members-1 {
		t.Errorf("notes %q, network %s, self %s, %d peers", store.Notes(), m.Network.ID, m.Self.IP4, len(m.Peers))
	}
	for _, o := range c.others {
		p := m.Peer(o.id.ID())
		if p == nil || p.IP4 != o.inner || p.Name != o.name || p.WG != o.id.WG() || p.FloorPSK != c.psk(o.id) ||
			len(p.Endpoints) != 1 || p.Endpoints[0] != o.outer {
			t.Fatalf("%s is %+v", o.name, p)
		}
	}
	for _, inv := range mesh.Invites() {
		if inv.Open || inv.Overused > 0 {
			t.Errorf("invite %s: open %v, overused %d", inv.Name, inv.Open, inv.Overused)
		}
	}
	for _, member := range mesh.Members() {
		if !member.Kept && member.ID != c.founder.ID() {
			t.Errorf("%s is not kept", member.Name)
		}
	}
}

// Every member has a /24 of its own, and only the active ones are in the route that leads to the swarm.
func TestOuterAddr(t *testing.T) {
	const active = 1000
	route := netip.MustParsePrefix(activeRoute)
	seen := make(map[netip.Prefix]bool)
	for i := range maxCrowd {
		a := outerAddr(i, active).Addr()
		p, err := a.Prefix(24)
		if err != nil || seen[p] || route.Contains(a) != (i < active) {
			t.Fatalf("member %d has %s: a /24 of its own %v, %v", i, a, !seen[p], err)
		}
		seen[p] = true
	}
}

func TestCrowdBounds(t *testing.T) {
	for _, n := range [][2]int{{1, 0}, {10, 0}, {10, 10}, {maxCrowd + 1, 5}} {
		if _, err := newCrowd(n[0], n[1], time.Now()); err == nil {
			t.Errorf("%d members, %d active: no error", n[0], n[1])
		}
	}
}
