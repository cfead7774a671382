package magicsock

import (
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/disco"
)

func TestPeerByKey(t *testing.T) {
	m := crowd(100)
	c, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p := c.PeerByKey(m.Peers[0].WG); p != nil {
		t.Fatal("a peer before there is a map")
	}
	c.SetMap(m)
	for i := range m.Peers {
		ep, ok := c.PeerByKey(m.Peers[i].WG).(*handle)
		if !ok || ep.id != m.Peers[i].ID || c.PeerByKey(m.Peers[i].WG) != datagram.Peer(ep) {
			t.Fatalf("member %d: %v", i, ep)
		}
	}
	if p := c.PeerByKey(identity.WGKey{1, 2, 3}); p != nil {
		t.Fatalf("%v, want a nil interface", p)
	}
	next := *m
	next.Peers = slices.Clone(m.Peers)
	next.Peers[5].WG = identity.WGKey{7, 7}
	old := c.PeerByKey(m.Peers[5].WG)
	c.SetMap(&next)
	if c.PeerByKey(m.Peers[5].WG) != nil || c.PeerByKey(next.Peers[5].WG) == nil || c.PeerByKey(next.Peers[5].WG) == old {
		t.Fatal("the handle does not follow the key")
	}
	old.Send(time.Now(), [][]byte{wgPacket(wgTransport, 40)})
	old.SendAll(time.Now(), wgPacket(wgInitiation, 148))
	old.Authenticated(time.Now(), &datagram.Source{Addr: addrA}, 40)
	if n := c.Counters()["drop_no_route"]; n != 2 {
		t.Errorf("%d drops of a handle that is no more, want 2", n)
	}
	c.AddProvisional(identity.PeerID{200}, identity.WGKey{200}, datagram.Place{Addr: addrC})
	if c.PeerByKey(identity.WGKey{200}) == nil {
		t.Error("no handle of a provisional peer")
	}
}

// TestMembersAreCheap knows many and remembers nothing of them until they are wanted.
func TestMembersAreCheap(t *testing.T) {
	b := newBench(t, true)
	b.core.take()
	b.core.setMap(b.now, crowd(1000))
	if n := len(b.core.peers); n != 0 {
		t.Fatalf("%d peers without a contact", n)
	}
	_, events := b.core.take()
	if len(events) != 0 {
		t.Fatalf("%d events for members that nobody asked for", len(events))
	}
	n := &b.core.members.Peers[500]
	if info := b.core.infoOfMember(n); len(info.Candidates) != 3 || info.Path.Kind != PathRelay {
		t.Fatalf("info %+v", info)
	}
	tag := disco.TagOf(b.core.secrets[0], n.ID, b.now.Unix()/3600)
	found := b.core.tags.lookup(b.now, b.core, tag)
	if len(found) != 1 || b.core.members.Peers[found[0].member].ID != n.ID {
		t.Fatalf("the tag names %v", found)
	}
	if len(b.core.tags.lookup(b.now, b.core, disco.Tag{1})) != 0 {
		t.Fatal("a tag of nobody names somebody")
	}
}
