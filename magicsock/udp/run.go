package udp

const (
	maxSegments = 64             // UDP_MAX_SEGMENTS of the oldest kernels with UDP_SEGMENT
	maxTrain4   = 65535 - 20 - 8 // payload of the largest IPv4 datagram
	maxTrain6   = 65535 - 8      // and of the largest IPv6 one: its own header does not count
)

// run tells how many of pkts (at least one) may leave as one segmented message: all of the first one's size, but the
// last may be shorter. An empty datagram has no place in a train.
func run(pkts [][]byte, maxBytes int) int {
	size := len(pkts[0])
	if size == 0 {
		return 1
	}
	total, n := size, 1
	for n < len(pkts) && n < maxSegments {
		next := len(pkts[n])
		if next == 0 || next > size || total+next > maxBytes {
			break
		}
		total += next
		n++
		if next < size {
			break
		}
	}
	return n
}
