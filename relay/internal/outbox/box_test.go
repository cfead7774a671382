package outbox

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// frame is one with a datagram of n bytes that bears a number.
func frame(flow byte, number uint32, n int) []byte {
	f := make([]byte, headerLen+addrLen+max(n, 4))
	f[0] = 0x12
	binary.BigEndian.PutUint32(f[1:], uint32(len(f)-headerLen))
	f[headerLen] = flow
	binary.BigEndian.PutUint32(f[headerLen+addrLen:], number)
	return f
}

func load(f []byte) *Load {
	return &Load{Head: f, Frames: 1, Packets: 1, Payload: len(f) - headerLen - addrLen}
}

// split is the frames of blocks.
func split(t *testing.T, batch []*Block) (frames [][]byte) {
	t.Helper()
	for _, b := range batch {
		packets, payload, n := 0, 0, 0
		for rest := b.Bytes(); len(rest) > 0; {
			size := headerLen + int(binary.BigEndian.Uint32(rest[1:]))
			p, bytesOf := weigh(rest[:size])
			packets, payload, n = packets+p, payload+bytesOf, n+1
			frames = append(frames, bytes.Clone(rest[:size]))
			rest = rest[size:]
		}
		if packets != b.Packets || payload != b.Payload || n != b.frames {
			t.Fatalf("block has %d frames, %d datagrams, %d bytes of them; it says %d, %d, %d",
				n, packets, payload, b.frames, b.Packets, b.Payload)
		}
	}
	return frames
}

func drain(t *testing.T, b *Box) (frames [][]byte) {
	t.Helper()
	for {
		batch, _ := b.Take(nil)
		if len(batch) == 0 {
			return frames
		}
		frames = append(frames, split(t, batch)...)
		Release(batch)
	}
}

// TestOrder puts frames of all sizes in and takes them out: nothing is lost or changed, and each flow keeps its order.
func TestOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var b Box
	b.Init(Limits{1 << 20, 1000}, Limits{1 << 20, 10_000})
	next, seen := map[byte]uint32{}, map[byte]uint32{}
	for range 300 {
		for range random.IntN(20) {
			flow := byte(random.IntN(5))
			n := random.IntN(1500)
			if random.IntN(30) == 0 {
				n = random.IntN(40_000)
			}
			if _, dropped := b.Append(Data, uint32(flow), load(frame(flow, next[flow], n))); dropped != 0 {
				t.Fatalf("%d dropped", dropped)
			}
			next[flow]++
		}
		batch, _ := b.Take(nil)
		for _, f := range split(t, batch) {
			flow, number := f[headerLen], binary.BigEndian.Uint32(f[headerLen+addrLen:])
			if number != seen[flow] {
				t.Fatalf("flow %d: number %d, want %d", flow, number, seen[flow])
			}
			seen[flow]++
		}
		Release(batch)
		if random.IntN(5) == 0 {
			for _, f := range drain(t, &b) {
				seen[f[headerLen]]++
			}
			if b.Waiting() != 0 {
				t.Fatalf("%d bytes wait in an empty box", b.Waiting())
			}
		}
	}
	drain(t, &b)
	if l := &b.lanes[Data]; l.bytes != 0 || l.frames != 0 {
		t.Fatalf("an empty lane has %d bytes, %d frames", l.bytes, l.frames)
	}
}

// TestDropsOldest keeps the newest frames, as many as the bounds allow.
func TestDropsOldest(t *testing.T) {
	size := len(frame(0, 0, 100))
	for name, limits := range map[string]Limits{"bytes": {size * 50, 1 << 20}, "frames": {1 << 20, 50}} {
		var b Box
		b.Init(limits, limits)
		drops := 0
		const count = 1000
		for i := range uint32(count) {
			_, dropped := b.Append(Data, 3, load(frame(0, i, 100)))
			drops += dropped
		}
		frames := drain(t, &b)
		if len(frames) != 50 || drops != count-50 {
			t.Errorf("%s: %d are left, %d dropped", name, len(frames), drops)
		}
		for i, f := range frames {
			if n := binary.BigEndian.Uint32(f[headerLen+addrLen:]); int(n) != count-50+i {
				t.Errorf("%s: number %d is left", name, n)
			}
		}
	}
}

// TestDropsFromGreatest has a flow that holds much lose frames, and one that holds little none.
func TestDropsFromGreatest(t *testing.T) {
	var b Box
	b.Init(Limits{1 << 16, 100}, Limits{100_000, 10_000})
	for i := range uint32(10) {
		b.Append(Data, 1, load(frame(1, i, 1000)))
	}
	for i := range uint32(1000) {
		b.Append(Data, 2, load(frame(2, i, 1000)))
	}
	got := map[byte]int{}
	for _, f := range drain(t, &b) {
		got[f[headerLen]]++
	}
	if got[1] != 10 || got[2] < 80 {
		t.Errorf("left of the flows: %v", got)
	}
}

// TestTurns has a flow with little leave soon, however much another holds.
func TestTurns(t *testing.T) {
	var b Box
	b.Init(Limits{1 << 16, 100}, Limits{1 << 20, 10_000})
	for i := range uint32(500) {
		b.Append(Data, 2, load(frame(2, i, 1000)))
	}
	b.Append(Data, 1, load(frame(1, 0, 1000)))
	batch, _ := b.Take(nil)
	found := false
	for _, f := range split(t, batch) {
		found = found || f[headerLen] == 1
	}
	if !found {
		t.Error("the small flow is not in the first batch")
	}
}

// TestUrgentFirst has signals leave first, and data not starve.
func TestUrgentFirst(t *testing.T) {
	var b Box
	b.Init(Limits{1 << 20, 10_000}, Limits{1 << 20, 10_000})
	for i := range uint32(200) {
		b.Append(Data, 1, load(frame(1, i, 1000)))
		b.Append(Urgent, 2, load(frame(2, i, 1000)))
	}
	batch, _ := b.Take(nil)
	got := map[byte]int{}
	frames := split(t, batch)
	for _, f := range frames {
		got[f[headerLen]]++
	}
	if frames[0][headerLen] != 2 || got[2] < 15 || got[1] < 15 {
		t.Errorf("first flow %d, in the batch %v", frames[0][headerLen], got)
	}
}

// TestWake tells exactly one writer to come, until it found nothing.
func TestWake(t *testing.T) {
	var b Box
	b.Init(Limits{1000, 10}, Limits{1000, 10})
	put := func() bool {
		wake, _ := b.Append(Data, 0, load(frame(0, 0, 10)))
		return wake
	}
	if !put() || put() {
		t.Error("the first must wake a writer, the second must not")
	}
	b.Take(nil)
	if put() {
		t.Error("the writer is still at it")
	}
	drain(t, &b)
	if !put() {
		t.Error("the writer is gone")
	}
	if dropped, writing := b.Close(); dropped != 1 || !writing {
		t.Errorf("closed with %d dropped, writer %v", dropped, writing)
	}
	if batch, closed := b.Take(nil); len(batch) != 0 || !closed {
		t.Error("something is left in a closed box")
	}
	if wake, dropped := b.Append(Data, 0, load(frame(0, 0, 10))); wake || dropped != 1 {
		t.Error("a closed box took something")
	}
	if dropped, writing := b.Close(); dropped != 0 || writing {
		t.Errorf("closed again with %d dropped, writer %v", dropped, writing)
	}
}

// TestTooLarge refuses what fits no lane and leaves the rest alone.
func TestTooLarge(t *testing.T) {
	var b Box
	b.Init(Limits{1000, 10}, Limits{1000, 10})
	b.Append(Data, 0, load(frame(0, 0, 10)))
	if wake, dropped := b.Append(Data, 0, load(frame(0, 0, 1000))); wake || dropped != 1 {
		t.Errorf("wake %v, dropped %d", wake, dropped)
	}
	if got := drain(t, &b); len(got) != 1 {
		t.Errorf("%d frames are left", len(got))
	}
}
