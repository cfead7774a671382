package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/udp"
)

const (
	// laneTrains is how many trains wait at most; the socket's own buffer has what comes beyond them.
	laneTrains = 48
	// laneTurn is how many bytes are handed on before the socket is looked at again: three full trains, or as many small
	// ones.
	laneTurn = 180 << 10
	// laneAlone is how long after something went ahead of bulk nothing is expected to: trains are then handed on as they
	// come, while they are in the cache.
	laneAlone = 100 * time.Millisecond
	// laneIdle is how long nothing comes before the memory of busy times is given back.
	laneIdle = 10 * time.Second
)

// lane is where trains of WireGuard's data wait for their turn, so that what is not bulk goes ahead of it: datagrams that
// their sender marked so, handshakes, and the socket's own. The sender marks only flows without bulk, so that every flow
// keeps its order. It is filled from the socket as soon as there is something. Owned by the goroutine of one leg.
type lane struct {
	ring  [laneTrains]laneTrain
	head  int
	count int
	free  [][]byte
	taken [][]byte // buffers of trains that were taken and are still in use
	last  time.Time
}

// laneTrain is a train with the memory that it lies in.
type laneTrain struct {
	datagram.Train
	buf []byte
}

func (l *lane) empty() bool { return l.count == 0 }

// full: a batch more has no place.
func (l *lane) full() bool { return l.count > laneTrains-trainBatch }

// spare is a buffer that takes the place of one that is put here.
func (l *lane) spare(now time.Time) []byte {
	if now.Sub(l.last) > laneIdle {
		l.free = nil
	}
	l.last = now
	if n := len(l.free); n > 0 {
		buf := l.free[n-1]
		l.free = l.free[:n-1]
		return buf
	}
	return make([]byte, udp.TrainSize)
}

// put takes over a train and the memory it lies in.
func (l *lane) put(t datagram.Train, buf []byte) {
	l.ring[(l.head+l.count)%laneTrains] = laneTrain{t, buf}
	l.count++
}

// take takes out the oldest train. Its buffer is free after done.
func (l *lane) take() datagram.Train {
	t := l.ring[l.head]
	l.ring[l.head] = laneTrain{}
	l.head = (l.head + 1) % laneTrains
	l.count--
	l.taken = append(l.taken, t.buf)
	return t.Train
}

// done frees the buffers of the trains that were taken.
func (l *lane) done() {
	l.free = append(l.free, l.taken...)
	l.taken = l.taken[:0]
}

// fewBytes reports whether trains are so little that nothing in them waits long for the rest.
func fewBytes(trains []datagram.Train) bool {
	size := 0
	for i := range trains {
		size += len(trains[i].Data)
	}
	return size <= laneTurn
}
