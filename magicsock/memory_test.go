package magicsock

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/netmap"
)

// crowd is a map of many members with two addresses each. Their keys are those of a few, as making keys is slow.
func crowd(count int) *netmap.Map {
	var some [16]*identity.Identity
	for i := range some {
		some[i] = identity.FromSeed(identity.Secret{byte(i), 77})
	}
	m := &netmap.Map{Network: netmap.Network{ID: identity.NetworkID{7}}, Keys: []identity.Secret{{9}}}
	for i := range count {
		p := netmap.Peer{Disco: some[i%len(some)].Disco()}
		binary.BigEndian.PutUint32(p.ID[:], uint32(i))
		binary.BigEndian.PutUint32(p.WG[:], uint32(i*2654435761))
		ip := netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 1})
		p.Endpoints = []netip.AddrPort{netip.AddrPortFrom(ip, 41820), netip.AddrPortFrom(ip.Next(), 41820)}
		m.Peers = append(m.Peers, p)
	}
	slices.SortFunc(m.Peers, func(a, b netmap.Peer) int { return a.ID.Compare(b.ID) })
	return m
}

func heapBytes() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkMemory tells what a member costs in memory: one in the map, with its tags, one that was pinged, and one that
// was forgotten after that.
func BenchmarkMemory(b *testing.B) {
	const count = 10000
	m := crowd(count)
	now := time.Unix(1e9, 0)
	c := newCore(identity.FromSeed(identity.Secret{1}), disco.BootID{1}, rand.New(rand.NewPCG(1, 1)))
	for b.Loop() {
		start := heapBytes()
		c = newCore(c.self, c.boot, c.rand)
		c.setMap(now, m)
		c.tags.lookup(now, c, disco.Tag{})
		c.take()
		known := heapBytes()
		for i := range m.Peers {
			c.contact(now, m.Peers[i].ID)
			c.take()
		}
		contacted := heapBytes()
		b.ReportMetric((known-start)/count, "B/known")
		b.ReportMetric((contacted-start)/count, "B/contacted")
		for later := now; len(c.timers) > 0; c.take() {
			later = c.nextDeadline()
			c.tick(later)
		}
		b.ReportMetric((heapBytes()-start)/count, "B/forgotten")
		runtime.KeepAlive(c)
		c = newCore(c.self, c.boot, c.rand)
	}
}

// BenchmarkSetMap takes over a map of 10 000 members in which one has another address.
func BenchmarkSetMap(b *testing.B) {
	m := crowd(10000)
	now := time.Unix(1e9, 0)
	c := newCore(identity.FromSeed(identity.Secret{1}), disco.BootID{1}, rand.New(rand.NewPCG(1, 1)))
	c.setMap(now, m)
	c.tags.lookup(now, c, disco.Tag{})
	b.ReportAllocs()
	for b.Loop() {
		next := *m
		next.Peers = slices.Clone(m.Peers)
		next.Peers[77].Endpoints = next.Peers[77].Endpoints[:1]
		c.setMap(now, &next)
		c.tags.lookup(now, c, disco.Tag{})
		c.take()
	}
}
