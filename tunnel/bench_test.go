package tunnel

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// BenchmarkTCP is one TCP flow between two userspace tunnels in one process: both netstacks and both ends' crypto.
func BenchmarkTCP(b *testing.B) {
	x, y, _ := pair(b)
	l, err := y.Listen("tcp", netip.AddrPortFrom(y.ip4, 80))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	received := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, c)
		received <- n
	}()
	c, err := x.Dial(b.Context(), "tcp", netip.AddrPortFrom(y.ip4, 80))
	if err != nil {
		b.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
	<-received
}

// BenchmarkOutboxInbox seals batches of packets and opens them, in memory and on one core.
func BenchmarkOutboxInbox(b *testing.B) {
	for _, size := range []int{1280, 200} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x, y, host := wired(b)
			const batch = 64
			pkt := numbered(x.ip4, y.ip4, 0, size)
			b.SetBytes(int64(batch * size))
			b.ReportAllocs()
			for b.Loop() {
				x.out.begin(time.Now())
				for range batch {
					x.out.add(x.entry(y.node), pkt)
				}
				x.out.flush()
			}
			if host.packets == 0 {
				b.Fatal("nothing arrives")
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

// BenchmarkTUN is the same from a read of the TUN, a superpacket of TCP, to a write of another.
func BenchmarkTUN(b *testing.B) {
	x, y, _ := wired(b)
	kept := superpacket(x.ip4, y.ip4, true, 50, 1228)
	buf := make([]byte, len(kept))
	r := newHostReader(x.tap)
	b.SetBytes(50 * 1228)
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, kept)
		r.take(buf)
		r.out.flush()
		r.reads = 0
	}
}

// BenchmarkBarHandshakes is how many initiations of members one core answers: public-key work, session and response.
func BenchmarkBarHandshakes(b *testing.B) {
	const members = 200
	hub := newSide(b, 1, false)
	var all []*side
	var nodes []*node
	for i := range members {
		n := addressesOf(byte(2 + i))
		m := newSideOf(b, n, false)
		m.know(hub.node)
		all, nodes = append(all, m), append(nodes, n)
	}
	hub.know(nodes...)
	now := sideEpoch
	var msgs [members][]byte
	var from [members]datagram.Source
	for i, m := range all {
		from[i] = sourceOf(m.node)
	}
	next := members
	b.ReportAllocs()
	for b.Loop() {
		if next == members {
			b.StopTimer()
			now = now.Add(time.Second)
			for i, m := range all {
				m.machine.Drop(now, m.entry(hub.node).wg)
				msgs[i] = message(b, m.machine.Renew(now, m.entry(hub.node).wg), wg.ActInitiate)
			}
			next = 0
			b.StartTimer()
		}
		message(b, hub.machine.Initiation(now, msgs[next], &from[next]), wg.ActReply)
		next++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handshakes/s")
}

// BenchmarkBarHandshakeFlood is what a session carries while 20 000 initiations of nobody with a valid MAC1 arrive each
// second, beside what it carries when the leg throws them away. Both in turns, so that both see the same machine.
func BenchmarkBarHandshakeFlood(b *testing.B) {
	const (
		perSecond = 20_000
		slice     = 100 * time.Millisecond
		turns     = 16 // of each
	)
	sky := newAir()
	x, y := newBare(b, sky, 1, nil), newBare(b, sky, 2, nil)
	know(x.node, y.node)
	x.send(y, 0, 1, 100)
	eventually(b, "a session", func() bool { return y.Stats()[x.id.ID()].Session })
	in := y.newInbox()
	y.tap.self.Store(newSelf(testNetwork(), y.ctl, y.ip4, y.ip6, false)) // packets go to the writer, not to the stack
	sink := &joinHost{fakeHost: newFakeHost()}
	in.out = sink.writer()
	var l datagram.Peer = &wire{to: in, from: datagram.Source{Addr: x.sock.addr(0)}}
	p := x.tap.table.Load().owner(y.ip4)
	p.link.Store(&l)
	out, pkt := newOutbox(x.tap, hostArena), numbered(x.ip4, y.ip4, 0, 1280)
	f, random, sources := newForger(y.id.WG()), rand.New(rand.NewPCG(1, 2)), 0

	turn := func(discard bool) float64 {
		before, start, sent := sink.packets, time.Now(), 0
		for now := start; now.Sub(start) < slice; now = time.Now() {
			out.begin(now)
			for range 64 {
				out.add(p, pkt)
			}
			out.flush()
			for ; sent < int(now.Sub(start).Seconds()*perSecond); sent++ {
				msg := f.next(noise.TypeInitiation)
				sources++
				from := fake(random.IntN(1 << 17))
				if !discard {
					in.take(now, []datagram.Train{{Data: msg, Size: len(msg), From: from}})
				}
			}
		}
		return float64(sink.packets-before) * 1280 * 8 / time.Since(start).Seconds() / 1e9
	}
	var quiet, flooded float64
	for b.Loop() {
		quiet, flooded = 0, 0
		turn(true)
		for range turns {
			quiet += turn(true) / turns
			flooded += turn(false) / turns
		}
	}
	b.ReportMetric(quiet, "Gbit/s-quiet")
	b.ReportMetric(flooded, "Gbit/s-flooded")
	b.ReportMetric(flooded/quiet, "ratio")
	if got := y.Counters()["door_cookie"]; got == 0 {
		b.Error("never under load")
	}
	if flooded/quiet < 0.8 {
		b.Errorf("a flood of handshakes costs more than a fifth: %.2f of %.2f Gbit/s are left", flooded, quiet)
	}
}
