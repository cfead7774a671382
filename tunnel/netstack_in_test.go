package tunnel

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// delivered makes a side note what its stack is given, superpackets too.
func delivered(s *side) *[][]byte {
	var all [][]byte
	s.tap.inject = func(b []byte) { all = append(all, slices.Clone(b)) }
	s.tap.injectParts = func(parts [][]byte) { all = append(all, bytes.Join(parts, nil)) }
	return &all
}

// TestStackTakesFlowsTogether: within one read of the socket, TCP comes as few large packets, flows keep their order,
// and nothing else is joined.
func TestStackTakesFlowsTogether(t *testing.T) {
	a, b := newSide(t, 1, false), newSide(t, 2, true)
	a.know(b.node)
	b.know(a.node)
	shake(t, sideEpoch, a, b)
	got, w, data := delivered(b), newStackWriter(a.tap), counting(30_000)
	for _, ips := range [][2]netip.Addr{{a.ip4, b.ip4}, {a.ip6, b.ip6}, {a.ctl, b.ctl}} {
		*got = nil
		for i := range 3 {
			hand(t, w, segmentOf(ips[0], ips[1], uint32(i)*10_000, data[i*10_000:][:10_000], 1000))
			a.out.begin(time.Now())
			a.out.add(a.entry(b.node), udpPacket(a.ip4, b.ip4, 100+i))
			a.out.flush()
		}
		b.take(time.Now(), a.node, a.links[b.node].take()...)
		var tcp, udp [][]byte
		for _, p := range *got {
			if p[0]>>4 == 4 && p[9] == 17 {
				udp = append(udp, p)
			} else {
				tcp = append(tcp, p)
			}
		}
		if len(tcp) != 3 || len(udp) != 3 { // each segment ends with PSH
			t.Fatalf("%d TCP and %d UDP packets", len(tcp), len(udp))
		}
		for i, p := range tcp {
			seq, payload := tcpData(p)
			if seq != uint32(i)*10_000 || !bytes.Equal(payload, data[i*10_000:][:10_000]) {
				t.Errorf("packet %d: %d bytes from %d", i, len(payload), seq)
			}
			if len(udp[i]) != 128+i {
				t.Errorf("UDP packet %d has %d bytes", i, len(udp[i]))
			}
		}
	}
	// A read alone: nothing waits for the next one.
	*got = nil
	hand(t, w, segmentOf(a.ip4, b.ip4, 0, data[:3000], 1000))
	sent := a.links[b.node].take()
	for i, d := range sent {
		b.take(time.Now(), a.node, d)
		if len(*got) != i+1 {
			t.Errorf("%d packets after %d reads", len(*got), i+1)
		}
	}
}
