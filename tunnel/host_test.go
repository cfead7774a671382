package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// superpacket is a read of a TUN that holds count UDP datagrams (tcp: segments) of size payload bytes each.
func superpacket(src, dst netip.Addr, tcp bool, count, size int) []byte {
	const needsCsum, gsoTCP4, gsoTCP6, gsoUDP = 1, 1, 4, 5
	l4 := 8
	if tcp {
		l4 = 20
	}
	ipLen := ipv4HeaderLen
	if src.Is6() {
		ipLen = ipv6HeaderLen
	}
	pkt := udpPacket(src, dst, count*size+l4-8)
	kind, sum := byte(gsoUDP), 6
	if tcp {
		t := pkt[ipLen:]
		clear(t[4:20])
		t[12], t[13] = 5<<4, 0x18 // ACK, PSH
		kind, sum = gsoTCP4, 16
		if src.Is4() {
			pkt[9] = 6
			binary.BigEndian.PutUint16(pkt[10:], 0)
			binary.BigEndian.PutUint16(pkt[10:], checksum(0, pkt[:ipv4HeaderLen]))
		} else {
			pkt[6], kind = 6, gsoTCP6
		}
	}
	for i := range count {
		for j := range size {
			pkt[ipLen+l4+i*size+j] = byte(i)
		}
	}
	h := make([]byte, offload.HeaderLen)
	h[0], h[1] = needsCsum, kind
	binary.NativeEndian.PutUint16(h[2:], uint16(ipLen+l4))
	binary.NativeEndian.PutUint16(h[4:], uint16(size))
	binary.NativeEndian.PutUint16(h[6:], uint16(ipLen))
	binary.NativeEndian.PutUint16(h[8:], uint16(sum))
	return append(h, pkt...)
}

// markers checks that packets are the segments of a superpacket, whole and with good checksums, and returns what each
// of them carries.
func markers(t *testing.T, pkts [][]byte, l4, size int) (all []byte) {
	t.Helper()
	for _, p := range pkts {
		_, _, n, ok := addresses(p)
		ipLen, proto, ends := ipv4HeaderLen, p[9], p[12:20]
		if p[0]>>4 == 6 {
			ipLen, proto, ends = ipv6HeaderLen, p[6], p[8:40]
		} else if checksum(0, p[:ipv4HeaderLen]) != 0 {
			t.Error("bad header checksum")
		}
		if !ok || n != len(p) || n != ipLen+l4+size {
			t.Fatalf("a packet of %d bytes", len(p))
		}
		if sum := checksum(uint32(n-ipLen)+uint32(proto), ends, p[ipLen:]); sum != 0 {
			t.Errorf("checksum off by %04x", sum)
		}
		body := p[ipLen+l4:]
		if !bytes.Equal(body, bytes.Repeat(body[:1], size)) {
			t.Error("payload mixed up")
		}
		all = append(all, body[0])
	}
	return all
}

func bytesUpTo(n int) (all []byte) {
	for i := range n {
		all = append(all, byte(i))
	}
	return all
}

// TestSuperpackets: with a session they are cut right into datagrams; without one the pieces wait, and leave in order
// before later ones.
func TestSuperpackets(t *testing.T) {
	for _, tt := range []struct {
		name string
		v6   bool
		tcp  bool
		l4   int
	}{{"tcp4", false, true, 20}, {"tcp6", true, true, 20}, {"udp4", false, false, 8}, {"udp6", true, false, 8}} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newSide(t, 1, false), newSide(t, 2, false)
			a.know(b.node)
			b.know(a.node)
			src, dst := a.ip4, b.ip4
			if tt.v6 {
				src, dst = a.ip6, b.ip6
			}
			const size = 1200
			r := newHostReader(a.tap)
			read := func(bufs ...[]byte) {
				for _, buf := range bufs {
					r.take(buf)
				}
				r.out.flush()
				for !r.lane.empty() {
					r.bulk()
				}
				r.reads = 0
			}
			read(superpacket(src, dst, tt.tcp, 30, size), superpacket(src, dst, tt.tcp, 20, size))
			if got := a.tap.lot.order.Len(); got != 50 {
				t.Fatalf("%d packets wait", got)
			}
			shake(t, sideEpoch, a, b)
			got := markers(t, b.got(), tt.l4, size)
			if want := append(bytesUpTo(30), bytesUpTo(20)...); !bytes.Equal(got, want) {
				t.Fatalf("those that waited: %v", got)
			}
			read(superpacket(src, dst, tt.tcp, 50, size))
			sent := a.links[b.node]
			if len(sent.runs) != 1 || sent.runs[0] != 50 {
				t.Errorf("sent as %v", sent.runs)
			}
			b.take(time.Now(), a.node, sent.take()...)
			all := b.got()
			if len(all) != 50 || !bytes.Equal(markers(t, all[:50], tt.l4, size), bytesUpTo(50)) {
				t.Errorf("%d packets arrived", len(all))
			}
			only(t, &a.c, nil)
			only(t, &b.c, nil)
		})
	}
}

// TestHostReaderMixed reads for a member with a session, one without, the service and nobody in one batch.
func TestHostReaderMixed(t *testing.T) {
	a, b := sidePair(t)
	c := addressesOf(3)
	a.know(b.node, c)
	r := newHostReader(a.tap)
	service := a.tap.self.Load().service4
	for i := range 20 {
		r.take(fromTUN(numbered(a.ip4, b.ip4, i, 600)))
		r.take(fromTUN(numbered(a.ip4, c.ip4, i, 600)))
		r.take(fromTUN(numbered(a.ip4, service, i, 600)))
		if i == 3 {
			r.take(fromTUN(numbered(a.ip4, netip.MustParseAddr("100.77.8.8"), i, 600)))
		}
	}
	r.out.flush()
	if got := numbers(a.injected); !slices.Equal(got, upTo(20)) {
		t.Errorf("the service got %v", got)
	}
	if len(a.host.got()) != 1 {
		t.Error("no answer about who is not there")
	}
	b.take(time.Now(), a.node, a.links[b.node].take()...)
	if got := numbers(b.got()); !slices.Equal(got, upTo(20)) {
		t.Errorf("b got %v", got)
	}
	var waiting []int
	a.tap.lot.release(a.entry(c), time.Now(), func(batch [][]byte) { waiting = append(waiting, numbers(batch)...) })
	if !slices.Equal(waiting, upTo(20)) {
		t.Errorf("c's wait: %v", waiting)
	}
	only(t, &a.c, map[reason]uint64{outNoMember: 1})
}

func TestHostReaderRefuses(t *testing.T) {
	a, b := sidePair(t)
	r := newHostReader(a.tap)
	r.take(superpacket(a.ip4, b.ip4, false, 3, 1300)) // pieces larger than the MTU
	bad := superpacket(a.ip4, b.ip4, true, 3, 1000)
	bad[1] = 77
	r.take(bad)
	r.take(fromTUN(udpPacket(a.ip4, b.ip4, 1300)))
	r.take(superpacket(b.ip4, a.ip4, true, 3, 1000))
	r.take(superpacket(a.ip6, b.ctl, true, 3, 1000))
	r.out.flush()
	for !r.lane.empty() {
		r.bulk()
	}
	if got := a.links[b.node].take(); len(got) != 0 {
		t.Errorf("%d datagrams", len(got))
	}
	only(t, &a.c, map[reason]uint64{outTooBig: 2, outMalformed: 1, outSource: 1, outControl: 1})
}

// TestHostReaderBounds: what is gathered before a flush is bounded in reads and bytes.
func TestHostReaderBounds(t *testing.T) {
	a, b := sidePair(t)
	for _, tt := range []struct {
		name string
		buf  []byte
		most int
	}{
		{"small", fromTUN(udpPacket(a.ip4, b.ip4, 5)), hostReads},
		{"large", superpacket(a.ip4, b.ip4, true, 50, 1200), bulkSupers},
	} {
		r, n := newHostReader(a.tap), 1
		for r.take(slices.Clone(tt.buf)) {
			n++
		}
		r.out.flush()
		if n != tt.most {
			t.Errorf("%s: %d reads, want %d", tt.name, n, tt.most)
		}
	}
}

// TestHostReaderRuns reads a fake TUN until it is gone.
func TestHostReaderRuns(t *testing.T) {
	a, b := sidePair(t)
	a.host.gone = errors.New("unplugged")
	ended := make(chan error, 1)
	go func() { ended <- newHostReader(a.tap).run() }()
	for i := range 300 {
		a.host.in <- fromTUN(numbered(a.ip4, b.ip4, i, 400))
	}
	link := a.links[b.node]
	eventually(t, "all is sent", func() bool {
		link.mu.Lock()
		defer link.mu.Unlock()
		return len(link.sent) == 300
	})
	_ = a.host.close()
	if err := <-ended; err != a.host.gone {
		t.Errorf("run: %v", err)
	}
	b.take(time.Now(), a.node, link.take()...)
	if got := numbers(b.got()); !slices.Equal(got, upTo(300)) {
		t.Errorf("arrived: %v", got)
	}
}

// pausing is a TUN that has a packet now and then.
type pausing struct {
	*fakeHost
	buf  []byte
	left int
}

func (p *pausing) readBatch(wait bool, take func(buf []byte) bool) error {
	if !wait {
		return nil
	}
	if p.left == 0 {
		return os.ErrClosed
	}
	p.left--
	time.Sleep(200 * time.Millisecond) // virtual
	take(slices.Clone(p.buf))
	return nil
}

// TestPauseIsNoQueue: a large packet after a pause did not wait, and is not dropped.
func TestPauseIsNoQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSide(t, 1, false), newSide(t, 2, false)
		a.know(b.node)
		b.know(a.node)
		shake(t, time.Now(), a, b)
		a.tap.host = &pausing{fakeHost: a.host, buf: superpacket(a.ip4, b.ip4, true, 40, 1200), left: 50}
		if err := newHostReader(a.tap).run(); err != os.ErrClosed {
			t.Fatal(err)
		}
		if got := len(a.links[b.node].take()); got != 50*40 {
			t.Errorf("%d datagrams", got)
		}
		only(t, &a.c, nil)
	})
}

// TestToHostRefused: what the OS TUN does not take is counted.
func TestToHostRefused(t *testing.T) {
	a, b := sidePair(t)
	a.host.refuse = os.ErrInvalid
	a.tap.toHost(make([]byte, headroom+20))
	a.in.out.(*fakeWriter).lose = 3
	a.take(sideEpoch, b.node)
	only(t, &a.c, map[reason]uint64{inTUNWrite: 4})
	u := newSide(t, 3, true)
	u.tap.toHost(make([]byte, headroom+20)) // nobody there
	only(t, &u.c, nil)
}
