package aqm

import "time"

const (
	// Target is the mean wait above which packets are dropped.
	Target = time.Millisecond
	// Memory is the time over which the mean is taken: bursts pass, and stalls of up to 10 ms.
	Memory = 100 * time.Millisecond
	// Gap is the least time between drops.
	Gap = 20 * time.Millisecond
	// Size is the least size in bytes of a packet to drop: small ones are acknowledgements, echoes, handshakes and
	// voices, of which none makes a queue.
	Size = 512
)

// Control decides which packets of one queue to drop. The zero value is ready. Owned by the goroutine that empties the
// queue.
type Control struct {
	mean time.Duration
	seen time.Time
	next time.Time
}

// Drop is told of a packet that waited for a time and is taken out now, and decides whether it is to be dropped.
func (c *Control) Drop(now time.Time, waited time.Duration) bool {
	passed := now.Sub(c.seen)
	if passed > waited { // before this packet came the queue was empty
		c.toward(0, passed-waited)
		passed = waited
	}
	c.toward(waited, passed)
	c.seen = now
	if c.mean < Target || waited < Target || now.Before(c.next) {
		return false
	}
	c.next = now.Add(Gap)
	return true
}

// toward takes a wait that held for a time into the mean.
func (c *Control) toward(waited, held time.Duration) {
	weight := min(float64(held)/float64(Memory), 1)
	c.mean += time.Duration(weight * float64(waited-c.mean))
}
