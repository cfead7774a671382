package meshsim

import (
	"time"

	"github.com/meshnet/meshnet/internal/sim"
)

// meter counts the bytes of a node, sent and received, by second.
type meter struct {
	from   int // the second that seconds begins with
	second []int
	total  int
}

func (m *meter) add(now time.Time, bytes int) {
	m.total += bytes
	at := int(now.Sub(sim.Epoch)/time.Second) - m.from
	if at < 0 {
		return
	}
	for len(m.second) <= at {
		m.second = append(m.second, 0)
	}
	m.second[at] += bytes
}

// reset begins anew at a moment.
func (m *meter) reset(now time.Time) {
	m.from, m.second, m.total = int(now.Sub(sim.Epoch)/time.Second), nil, 0
}

// peak is the most bytes in a second.
func (m *meter) peak() int {
	most := 0
	for _, b := range m.second {
		most = max(most, b)
	}
	return most
}
