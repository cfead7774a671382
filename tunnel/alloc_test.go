//go:build !race

package tunnel

import (
	"runtime"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/offload"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// mallocs counts what f allocates.
func mallocs(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// keeping is a TUN whose reads may be kept.
type keeping struct {
	host
	buf []byte
}

func (k *keeping) keep(fresh []byte) { k.buf = fresh }

// TestPacketPathAllocs carries 100 000 packets each way through outbox and inbox, from reads of a TUN to writes of one.
func TestPacketPathAllocs(t *testing.T) {
	const packets, most = 100_000, 100
	for _, tt := range []struct {
		name string
		read func(a, b *side) []byte
		each int // packets of a read
	}{
		{"single", func(a, b *side) []byte { return fromTUN(udpPacket(a.ip6, b.ip6, 1000)) }, 1},
		{"superpackets", func(a, b *side) []byte { return superpacket(a.ip4, b.ip4, true, 50, 1200) }, 50},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b, host := wired(t)
			r := newHostReader(a.tap)
			kept := tt.read(a, b)
			tun := &keeping{host: a.tap.host, buf: make([]byte, offload.MaxRead)}
			a.tap.host = tun
			carry := func(n int) {
				for sent := 0; sent < n; {
					for more := true; more; sent += tt.each {
						buf := tun.buf[:copy(tun.buf, kept)]
						more = r.take(buf) && r.lane.empty() // else the queue control would have something to do
					}
					r.out.flush()
					for !r.lane.empty() {
						r.bulk()
					}
					r.reads = 0
				}
			}
			carry(10_000)
			host.packets = 0
			if got := mallocs(func() { carry(packets) }); got >= most {
				t.Errorf("%d allocations", got)
			}
			if host.packets < packets {
				t.Errorf("%d packets arrived", host.packets)
			}
			only(t, &a.c, nil)
			only(t, &b.c, nil)
		})
	}
	t.Run("small batches of several members", func(t *testing.T) {
		hub, members := crowd(t, 5)
		var w [5]*wire
		for i, m := range members {
			w[i] = &wire{to: m.in, from: sourceOf(hub.node)}
			m.host.silent = true
			var l datagram.Peer = w[i]
			hub.entry(m.node).link.Store(&l)
		}
		pkt := make([][]byte, 5)
		for i, m := range members {
			pkt[i] = udpPacket(hub.ip4, m.ip4, 200)
		}
		carry := func(n int) {
			for sent := 0; sent < n; sent += 10 {
				hub.out.begin(time.Now())
				for i := range 10 {
					hub.out.add(hub.tap.table.Load().owner(members[i%5].ip4), pkt[i%5])
				}
				hub.out.flush()
			}
		}
		carry(1000)
		if got := mallocs(func() { carry(packets) }); got >= most {
			t.Errorf("%d allocations", got)
		}
		if got := members[3].entry(hub.node).wg.Stats(hub.machine.Clock(), time.Now()).RxBytes; got < packets/5*(240+wg.Overhead) {
			t.Errorf("%d bytes arrived", got)
		}
	})
}
