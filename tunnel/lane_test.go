package tunnel

import (
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// burst is a TUN that has everything at once.
type burst struct {
	*fakeHost
	bufs [][]byte
}

func (b *burst) readBatch(wait bool, take func(buf []byte) bool) error {
	if wait && len(b.bufs) == 0 {
		return os.ErrClosed
	}
	for len(b.bufs) > 0 {
		buf := b.bufs[0]
		b.bufs = b.bufs[1:]
		if !take(buf) {
			break
		}
	}
	return nil
}

// sent are the sizes of the datagrams that left a for b, in order.
func sent(a, b *side) (sizes []int) {
	for _, d := range a.links[b.node].take() {
		sizes = append(sizes, len(d))
	}
	return sizes
}

// TestLaneLetsSmallOnesPass: packets of other flows go ahead of superpackets that wait; those of the same flow do not.
func TestLaneLetsSmallOnesPass(t *testing.T) {
	a, b := sidePair(t)
	bulk := superpacket(a.ip4, b.ip4, true, 4, 1200) // TCP from port 1 to 2
	other := fromTUN(udpPacket(a.ip4, b.ip4, 100))
	same := fromTUN(slices.Clone(bulk[offload.HeaderLen:][:ipv4HeaderLen+20])) // an acknowledgement
	binary.BigEndian.PutUint16(same[offload.HeaderLen+2:], ipv4HeaderLen+20)
	a.tap.host = &burst{fakeHost: a.host, bufs: [][]byte{slices.Clone(bulk), slices.Clone(bulk), other, same}}
	if err := newHostReader(a.tap).run(); err != os.ErrClosed {
		t.Fatal(err)
	}
	sizes := sent(a, b)
	if len(sizes) != 10 {
		t.Fatalf("sent: %v", sizes)
	}
	if sizes[0] >= 1000 {
		t.Errorf("the other flow waited: %v", sizes)
	}
	if sizes[9] >= 1000 || slices.ContainsFunc(sizes[1:9], func(n int) bool { return n < 1000 }) {
		t.Errorf("the flow's own packet overtook: %v", sizes)
	}
}

func TestLaneIsBounded(t *testing.T) {
	a, b := sidePair(t)
	var bufs [][]byte
	for range 3 * laneBuffers {
		bufs = append(bufs, superpacket(a.ip4, b.ip4, true, 4, 1200))
	}
	a.tap.host = &burst{fakeHost: a.host, bufs: bufs}
	r := newHostReader(a.tap)
	if err := r.run(); err != os.ErrClosed {
		t.Fatal(err)
	}
	if got := len(sent(a, b)); got != 3*laneBuffers*4 {
		t.Errorf("%d datagrams", got)
	}
	if !r.lane.empty() || len(r.lane.free) > laneBuffers {
		t.Errorf("%d wait, %d buffers", r.lane.count, len(r.lane.free))
	}
	r.begin(time.Now().Add(hostIdle + time.Minute))
	if r.lane.free != nil {
		t.Error("memory of the busy time is kept")
	}
}

func TestLaneFlows(t *testing.T) {
	var l lane
	a, b := sidePair(t)
	one := udpPacket(a.ip4, b.ip4, 100)
	if l.flow(one) != l.flow(slices.Clone(one)) {
		t.Error("one flow, two entries")
	}
	six := udpPacket(a.ip6, b.ip6, 100)
	if l.flow(six) == l.flow(one) {
		t.Error("two flows, one entry")
	}
	f := l.flow(one)
	now := time.Now()
	if !f.calm(now) {
		t.Error("a flow that sent nothing is bulk")
	}
	l.put(laneEntry{flow: f})
	if f.calm(now) {
		t.Error("its packets wait, and it is calm")
	}
	l.take(now)
	if f.calm(now.Add(laneQuiet / 2)) {
		t.Error("its packets left just now, and it is calm")
	}
	if !f.calm(now.Add(2 * laneQuiet)) {
		t.Error("bulk for ever")
	}
}
