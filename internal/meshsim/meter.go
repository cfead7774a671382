package meshsim

import (
	"time"

	"github.com/meshnet/meshnet/internal/sim"
)

// meter counts the bytes of a node by second, those that it sends apart from those that come.
type meter struct {
	from  int // the second that flows begin with
	flows [2][]int
	total int
}

// The flows.
const (
	sent = iota
	received
)

func (m *meter) add(now time.Time, flow, bytes int) {
	m.total += bytes
	at := int(now.Sub(sim.Epoch)/time.Second) - m.from
	if at < 0 {
		return
	}
	f := &m.flows[flow]
	for len(*f) <= at {
		*f = append(*f, 0)
	}
	(*f)[at] += bytes
}

// both counts what goes one way as much as the other.
func (m *meter) both(now time.Time, bytes int) {
	m.add(now, sent, bytes/2)
	m.add(now, received, bytes-bytes/2)
}

// reset begins anew at a moment.
func (m *meter) reset(now time.Time) {
	*m = meter{from: int(now.Sub(sim.Epoch) / time.Second)}
}

// peak is the most bytes that went one way in a second.
func (m *meter) peak() int {
	most := 0
	for _, f := range m.flows {
		for _, b := range f {
			most = max(most, b)
		}
	}
	return most
}
