package magicsock

import (
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// bulkTrain is a train of WireGuard's data whose datagrams carry a number each, from first on.
func bulkTrain(first, count int) datagram.Train {
	const size = 1312
	data := make([]byte, size*count)
	for i := range count {
		data[i*size] = wgTransport
		data[i*size+4], data[i*size+5] = byte((first+i)>>8), byte(first+i)
	}
	return datagram.Train{Data: data, Size: size}
}

// numbers are those of the datagrams of trains.
func numbers(trains []datagram.Train) (all []int) {
	for _, t := range trains {
		for pkt := range slices.Chunk(t.Data, t.Size) {
			all = append(all, int(pkt[4])<<8|int(pkt[5]))
		}
	}
	return all
}

func TestLaneKeepsOrderAndMemory(t *testing.T) {
	var l lane
	now := time.Unix(1e9, 0)
	next, want := 0, 0
	seen := make(map[*byte]bool)
	for round := range 500 {
		for range 1 + round%7 {
			if l.full() {
				break
			}
			l.put(bulkTrain(next&0xffff, 1), l.spare(now))
			next++
		}
		for range round % 6 {
			if l.empty() {
				break
			}
			if got := numbers([]datagram.Train{l.take()}); got[0] != want&0xffff {
				t.Fatalf("took %d, want %d", got[0], want)
			}
			want++
		}
		for _, buf := range l.taken {
			seen[&buf[0]] = true
			if len(buf) != udp.TrainSize {
				t.Fatalf("a buffer of %d bytes", len(buf))
			}
		}
		l.done()
		if len(l.free)+l.count > laneTrains {
			t.Fatalf("%d buffers for %d places", len(l.free)+l.count, laneTrains)
		}
	}
	if want < 500 || len(seen) > laneTrains {
		t.Fatalf("%d trains went through %d buffers", want, len(seen))
	}
	if l.spare(now.Add(laneIdle + 1)); len(l.free) != 0 {
		t.Error("the memory of busy times stays")
	}
}

// TestLaneTurns lets what is marked overtake bulk that waits, and bulk go on in turns of laneTurn bytes.
func TestLaneTurns(t *testing.T) {
	conn, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var got [][]int
	in := intake{conn: conn, take: func(_ time.Time, trains []datagram.Train) { got = append(got, numbers(trains)) }}
	now := time.Now()
	for i := range 10 { // full trains, 64 KiB each
		in.lane.put(bulkTrain(i*49, 49), in.lane.spare(now))
	}
	marked := bulkTrain(5000, 1)
	marked.Ahead = true
	in.carry(now, conn.sockets[family4].Load(), []datagram.Train{marked})
	if len(got) != 1 || !slices.Equal(got[0], []int{5000}) {
		t.Fatalf("handed on %v, want what is marked", got)
	}
	got = nil
	for range 10 {
		in.bulk(now)
	}
	all := slices.Concat(got...)
	if !slices.IsSorted(all) || len(all) != 490 {
		t.Fatalf("%d datagrams, in order %v", len(all), slices.IsSorted(all))
	}
	if len(got) != 4 || len(got[0]) != 3*49 {
		t.Errorf("%d turns, the first of %d datagrams", len(got), len(got[0]))
	}
}

// TestLaneOutlivesItsSocket has bulk wait while its socket is closed and gone: it is handed on before anybody asks what
// became of the socket.
func TestLaneOutlivesItsSocket(t *testing.T) {
	conn, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var got []int
	in := intake{conn: conn, take: func(_ time.Time, trains []datagram.Train) { got = append(got, numbers(trains)...) }}
	trains := make([]datagram.Train, trainBatch)
	now := time.Now()
	for i := range 10 {
		in.lane.put(bulkTrain(i*49, 49), in.lane.spare(now))
	}
	old := conn.sockets[family4].Load()
	if err := conn.Rebind(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*udp.Socket{old, nil, conn.sockets[family4].Load()} {
		if n, err := in.read(s, trains); n != 0 || err != nil {
			t.Fatalf("read %d trains, %v, while others wait", n, err)
		}
		in.bulk(now)
	}
	in.bulk(now)
	if len(got) != 490 || !slices.IsSorted(got) {
		t.Fatalf("%d datagrams, in order %v", len(got), slices.IsSorted(got))
	}
	if _, err := in.read(old, trains); err == nil {
		t.Error("no word of the closed socket once nothing waits")
	}
	if _, err := in.read(nil, trains); err == nil {
		t.Error("no word of the missing socket once nothing waits")
	}
}
