package magicsock

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// framed is a datagram behind a session's head.
func framed(sid byte, pkt []byte) []byte { return append([]byte{0xC9, 0, 0, 0, 0, 0, 0, sid}, pkt...) }

// TestSessionsAreTakenWhereTheyAreKnown sends framed datagrams: only those of a session that a path is known by arrive,
// with it as their source, and answers go back in frames.
func TestSessionsAreTakenWhereTheyAreKnown(t *testing.T) {
	b := newSide(t, 2, Config{})
	a := identity.FromSeed(identity.Secret{1})
	b.know((&side{id: a}).peer())
	relay, err := udp.Listen(udp.Config{Network: "udp4"})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	from := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), relay.Port())
	by := way{addr: from, sid: 9}
	b.conn.do(func(now time.Time, core *core) {
		p := core.peer(now, a.ID())
		core.addSession(now, p, by, p)
		core.sends = nil
	})
	pkts := [][]byte{
		framed(8, wgPacket(wgTransport, 100)), framed(9, framed(9, wgPacket(wgTransport, 92))),
		framed(9, append([]byte{0xC1}, make([]byte, 99)...)), framed(9, nil), framed(9, wgPacket(wgTransport, 100)),
	}
	if err := relay.Write(b.addr(), udp.Source{}, pkts); err != nil {
		t.Fatal(err)
	}
	in := b.batch(t).trains[0]
	if len(in.Data) != 100 || in.From.Via != 9 || in.From.Addr != from {
		t.Fatalf("%d bytes from %+v", len(in.Data), in.From)
	}
	if c := b.conn.Counters(); c["drop_session"] != 1 || c["drop_foreign"] != 3 {
		t.Errorf("counters %v", c)
	}
	b.conn.Reply(&in.From, wgPacket(wgResponse, 92))
	b.conn.PeerByKey(a.WG()).Authenticated(time.Now(), &in.From, 100)
	b.conn.PeerByKey(a.WG()).Send(time.Now(), [][]byte{wgPacket(wgTransport, 77)})
	var got [][]byte
	trains := make([]datagram.Train, 8)
	for deadline := time.Now().Add(10 * time.Second); len(got) < 2 && time.Now().Before(deadline); {
		n, err := relay.PollTrains(trains)
		if err != nil {
			t.Fatal(err)
		}
		for _, train := range trains[:n] {
			for pkt := range slices.Chunk(train.Data, train.Size) {
				if !bytes.HasPrefix(pkt, framed(9, nil)) {
					t.Fatalf("sent %x", pkt[:8])
				}
				if disco.Type(pkt[8]) != disco.TypePing {
					got = append(got, bytes.Clone(pkt[8:]))
				}
			}
		}
	}
	if len(got) != 2 || len(got[0]) != 92 || len(got[1]) != 77 {
		t.Fatalf("%d answers", len(got))
	}
	if info, _ := b.conn.Peer(a.ID()); info.Path.Kind != PathMember || info.Path.Via != a.ID() || info.ByKind[PathMember].Rx != 100 {
		t.Errorf("%+v, %v", info.Path, info.ByKind)
	}
	b.conn.do(func(now time.Time, core *core) { core.dropSession(now, core.peers[a.ID()], by) })
	if b.conn.core.hasSession(by) {
		t.Error("a session that is over is taken")
	}
}
