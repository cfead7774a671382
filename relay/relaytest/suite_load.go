package relaytest

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// flood sends numbered datagrams to a node, more than its queue and the buffers between can hold.
func flood(t *testing.T, r Relay, from *Node, to identity.PeerID, count int) {
	t.Helper()
	pkts := numbered(count, ofSize(1000))
	forwarded := r.Server.Counters()["forwarded_packets"]
	for i := 0; i < count; i += 100 {
		if err := from.Send(to, pkts[i:i+100], false); err != nil {
			t.Fatal(err)
		}
		Until(t, func() bool { return r.Server.Counters()["forwarded_packets"]-forwarded >= uint64(i+100) })
	}
}

// testStuckClient has one client that does not read, and others that do not notice.
func testStuckClient(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	a, b := Connect(t, r), Connect(t, r)
	stuck := ConnectRaw(t, r, identity.New())
	for i := 0; r.Server.Counters()["drop_queue_full"] == 0; i++ {
		if i == 400 {
			t.Fatal("40 MB fit the queue of a client that does not read")
		}
		flood(t, r, a, stuck.ID, 100)
	}
	for i := range 200 {
		began := time.Now()
		for _, pkts := range [][][]byte{numbered(20, ofSize(1000)), nil} {
			to := b.ID
			if pkts == nil {
				to, pkts = stuck.ID, numbered(20, ofSize(1000))
			}
			if err := a.Send(to, pkts, false); err != nil {
				t.Fatal(err)
			}
		}
		b.Await(t, 20*(i+1))
		if took := time.Since(began); took > time.Second {
			t.Fatalf("20 datagrams took %v beside a client that is stuck", took)
		}
	}
	Until(t, func() bool { return r.Server.Counters()["close_stalled"] == 1 })
}

// testDropsOldest reads late: what is missing is from the middle, older than all that waited in the queue.
func testDropsOldest(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	a := Connect(t, r)
	late := ConnectRaw(t, r, identity.New())
	const count = 10_000
	flood(t, r, a, late.ID, count)
	next, missing, afterGap := uint32(0), 0, 0
	for next < count {
		f := late.Next(t)
		data, size, err := relay.Datagrams(f.Type, f.Payload())
		if f.Type != relay.TypeRecvTrain || err != nil {
			continue
		}
		for ; len(data) >= size; data = data[size:] {
			n := binary.BigEndian.Uint32(data)
			switch {
			case n < next:
				t.Fatalf("datagram %d came after %d", n, next-1)
			case n > next:
				missing += int(n - next)
				afterGap = 0
			}
			next = n + 1
			afterGap++
		}
	}
	drops := r.Server.Counters()["drop_queue_full"]
	if uint64(missing) != drops {
		t.Errorf("%d datagrams are missing, %d were counted", missing, drops)
	}
	if missing > 0 && afterGap < 100 {
		t.Errorf("after the last gap came only %d datagrams: they were not the newest", afterGap)
	}
}

// testFair has one sender that fills a queue and one that sends little, of which nothing is lost.
func testFair(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	for try := 0; ; try++ {
		loud, soft := Connect(t, r), Connect(t, r)
		slow := ConnectRaw(t, r, identity.New())
		for i := 0; r.Server.Counters()["drop_queue_full"] == 0 && i < 400; i++ {
			flood(t, r, loud, slow.ID, 100)
		}
		flood(t, r, soft, slow.ID, 100)
		flood(t, r, loud, slow.ID, 1000)
		got := make(map[uint32]bool)
		for len(got) < 100 {
			f, err := slow.read(time.Second)
			if err != nil {
				break
			}
			data, size, err := relay.Datagrams(f.Type, f.Payload())
			if f.Type != relay.TypeRecvTrain || err != nil || identity.PeerID(f.Payload()[:relay.AddrLen]) != soft.ID {
				continue
			}
			for ; len(data) >= size; data = data[size:] {
				got[binary.BigEndian.Uint32(data)] = true
			}
		}
		if len(got) == 100 {
			return
		}
		if try == 3 { // flows are told apart by hashes: two senders share one in one of eight runs
			t.Fatalf("of 100 datagrams of a modest sender %d arrived", len(got))
		}
	}
}

// testRate reads a client no faster than allowed, and others as ever.
func testRate(t *testing.T, start Start) {
	const rate = 256 << 10
	r := start(t, relayserver.Config{Rate: rate})
	a, b, c := Connect(t, r), Connect(t, r), Connect(t, r)
	const count, size = 300, 1000 // a burst of 64 KiB is free: 0.9 s for the rest
	began := time.Now()
	if err := a.Send(b.ID, numbered(count, ofSize(size)), false); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(b.ID, [][]byte{[]byte("quick")}, false); err != nil {
		t.Fatal(err)
	}
	Until(t, func() bool {
		for _, got := range b.Got() {
			if got.From == c.ID {
				return true
			}
		}
		return false
	})
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("another client's datagram took %v", took)
	}
	b.Await(t, count+1)
	const least = (count*size - rate/4) * 9 / 10 * time.Second / rate
	if took := time.Since(began); took < least {
		t.Errorf("%d bytes at %d bytes a second took %v, want %v at least", count*size, rate, took, least)
	}
	if r.Server.Counters()["rate_limited"] == 0 || r.Server.Stats().Dropped != 0 {
		t.Errorf("counters: %v", r.Server.Counters())
	}
}

// testDuplicateKey has two connections with one key: the newest gets what is sent, then whoever sent last.
func testDuplicateKey(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	a, first := Connect(t, r), Connect(t, r)
	same := func(cfg *relay.ClientConfig) { cfg.Identity = first.Key }
	hello := [][]byte{[]byte("hello")}
	a.Send(first.ID, hello, false)
	first.Await(t, 1)
	second := Connect(t, r, same)
	Until(t, func() bool { return len(first.Health()) == 1 })
	if text := first.Health()[0]; !strings.Contains(text, "another connection") {
		t.Errorf("the first was told %q", text)
	}
	a.Send(first.ID, hello, false)
	second.Await(t, 1)
	Until(t, func() bool { // the first becomes active by sending, but not at once
		first.Send(a.ID, hello, false)
		return len(second.Health()) > 0
	})
	Until(t, func() bool { return len(first.Health()) == 2 })
	if text := first.Health()[1]; text != "" {
		t.Errorf("the first was told %q when it was active again", text)
	}
	before := len(first.Got())
	a.Send(first.ID, hello, false)
	first.Await(t, before+1)
	if n := r.Server.Counters()["active_takeovers"]; n != 1 {
		t.Errorf("%d takeovers", n)
	}
	first.Close()
	before = len(second.Got())
	Until(t, func() bool { // the second is what is left of the node
		a.Send(first.ID, hello, false)
		return len(second.Got()) > before
	})
	if _, told := a.Gone(first.ID); told {
		t.Error("a node with another connection was told to be gone")
	}
	oldest := second
	for range 4 {
		Connect(t, r, same)
	}
	if err := oldest.Ended(t); !errors.Is(err, relay.ErrReplaced) {
		t.Errorf("one connection too many: %v", err)
	}
}

// testRestart tells everybody, and ends.
func testRestart(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	all := make([]*Node, 10)
	for i := range all {
		all[i] = Connect(t, r)
	}
	half := DialRaw(t, r)
	stuck := ConnectRaw(t, r, identity.New()) // reads, but does not close
	last := make(chan relay.Type, 1)
	go func() {
		var typ relay.Type
		for f, err := stuck.read(patience); err == nil; f, err = stuck.read(patience) {
			typ = f.Type
		}
		last <- typ
	}()
	began := time.Now()
	if err := r.Server.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("closing took %v", took)
	}
	moments := make(map[time.Duration]bool)
	for _, n := range all {
		if err := n.Ended(t); !errors.Is(err, relay.ErrRestarting) {
			t.Errorf("client ended with %v", err)
		}
		moments[n.again] = true
	}
	if len(moments) < len(all) {
		t.Errorf("clients are asked to come back at %d moments", len(moments))
	}
	half.Ends(t)
	if typ := <-last; typ != relay.TypeRestarting {
		t.Errorf("the last frame was %#x", typ)
	}
	if s := r.Server.Stats(); s.Live != 0 {
		t.Errorf("sessions: %+v", s)
	}
	if stream, err := r.Dial(t.Context()); err == nil {
		if _, err := relay.NewClient(t.Context(), stream, relay.ClientConfig{Identity: identity.New()}); err == nil {
			t.Error("a closed server took a client")
		}
	}
}
