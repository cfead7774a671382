//go:build !race

package tunnel

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/meshnet/meshnet/internal/datagram"
)

// The race detector makes pools forget at random, so these count without it.

func TestInjectAllocations(t *testing.T) {
	a := addressesOf(1)
	n, err := newNetstack(DefaultMTU, newStackWriter(newSide(t, 1, true).tap).write)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	n.setAddresses([]netip.Addr{a.ip6})
	// For nobody, so the stack drops it after a look.
	pkt := udpPacket(addressesOf(2).ip6, addressesOf(3).ip6, 1000)
	parts := [][]byte{pkt, make([]byte, 30_000), make([]byte, 30_000)}
	n.injectParts(parts)
	if got := testing.AllocsPerRun(100, func() { n.injectParts(parts) }); got > 2 {
		t.Errorf("%v allocations for a packet of 60 kB", got)
	}
	if n.Stats().IP.PacketsReceived.Value() == 0 {
		t.Error("the stack got nothing")
	}
}

// nowhere is a link that keeps nothing.
type nowhere struct{}

func (nowhere) Send(time.Time, [][]byte)                       {}
func (nowhere) SendAhead(time.Time, [][]byte)                  {}
func (nowhere) SendAll(time.Time, []byte)                      {}
func (nowhere) Authenticated(time.Time, *datagram.Source, int) {}
func (nowhere) MaxSize() int                                   { return 0 }

func TestStackWriteAllocations(t *testing.T) {
	a, b := sidePair(t)
	var l datagram.Peer = nowhere{}
	a.entry(b.node).link.Store(&l)
	w := newStackWriter(a.tap)
	var list stack.PacketBufferList
	list.PushBack(segmentOf(a.ip6, b.ip6, 0, bytes.Repeat([]byte("x"), 60_000), 1200))
	defer list.Reset()
	run := func() {
		if _, err := w.write(list); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("%v allocations for a segment", n)
	}
}
