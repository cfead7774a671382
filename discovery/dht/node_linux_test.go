package dht

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/dht/v2/krpc"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/netlab"
)

func TestPublishedIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 9, nil)
	writer, reader := w.node(t, Config{}), w.node(t, Config{})
	start := time.Now()
	mustPublish(t, writer, 1, "here I am")
	published := time.Since(start)
	start = time.Now()
	if got := lookup(t, reader, testTime); len(got) != 1 || got[KeyOf(idOf(1))] != "here I am" {
		t.Fatalf("found %v", got)
	}
	t.Logf("published in %v, found in %v, queries %d and %d", published, time.Since(start), writer.Status().Queries, reader.Status().Queries)
	for name, now := range map[string]time.Time{"slot before": testTime.Add(slotLength), "slot after": testTime.Add(-time.Second)} {
		if got := lookup(t, reader, now); len(got) != 1 {
			t.Errorf("%s: found %v", name, got)
		}
	}
	for name, now := range map[string]time.Time{"two slots on": testTime.Add(2 * slotLength)} {
		if got := lookup(t, reader, now); len(got) != 0 {
			t.Errorf("%s: found %v", name, got)
		}
	}
	before := reader.Status().Queries
	start = time.Now()
	if got, err := reader.Lookup(t.Context(), secretOf(2), testTime); err != nil || len(got) != 0 {
		t.Errorf("another secret: found %v, %v", got, err)
	}
	sent, took := float64(reader.Status().Queries-before), time.Since(start)
	if most := queriesOut*took.Seconds() + queriesOutBurst + 1; sent > most {
		t.Errorf("%.0f queries in %v", sent, took)
	}
	t.Logf("nothing found by %.0f queries in %v", sent, took)
	if s := reader.Status(); s.Err != nil || s.LastLookup.IsZero() || s.Good < 7 || !s.LastPublish.IsZero() {
		t.Errorf("status %+v", s)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	n := New(Config{Bootstrap: []string{}})
	if err := n.Publish(t.Context(), secretOf(1), idOf(1), []byte("x"), testTime); !errors.Is(err, ErrNotRunning) {
		t.Errorf("not running: %v", err)
	}
	n = new(world).node(t, Config{Bootstrap: []string{}})
	for _, size := range []int{0, MaxData + 1} {
		if err := n.Publish(t.Context(), secretOf(1), idOf(1), make([]byte, size), testTime); !errors.Is(err, ErrTooLong) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	start := time.Now()
	if _, err := n.Lookup(t.Context(), secretOf(1), testTime); !errors.Is(err, ErrNoNodes) {
		t.Errorf("no nodes: %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("no nodes took %v", took)
	}
	if s := n.Status(); !errors.Is(s.Err, ErrNoNodes) || !s.LastLookup.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// By the socket that is opened by itself, for both families, in a DHT of each.
func TestBothFamilies(t *testing.T) {
	t.Parallel()
	probe, err := net.ListenPacket("udp6", "[::1]:0")
	netlab.Need(t, err == nil, "needs IPv6 on loopback")
	probe.Close()
	var six []netip.Addr
	for range 8 {
		six = append(six, netip.IPv6Loopback())
	}
	for name, w := range map[string]*world{"IPv4": newWorld(t, 8, nil), "IPv6": newWorldAt(t, six, nil)} {
		open := func() (net.PacketConn, error) { return New(Config{}).open() }
		writer, reader := w.node(t, Config{Open: open}), w.node(t, Config{Open: open})
		mustPublish(t, writer, 1, name)
		if got := lookup(t, reader, testTime); len(got) != 1 || got[KeyOf(idOf(1))] != name {
			t.Errorf("%s: found %v", name, got)
		}
		var again contacts
		if err := again.load(reader.Save()); err != nil || len(again.all) < 8 {
			t.Errorf("%s: %d nodes saved, %v", name, len(again.all), err)
		}
	}
}

func TestEndsAtOnce(t *testing.T) {
	t.Parallel()
	mute := listen(t, netip.MustParseAddr("127.7.9.3"))
	defer mute.Close()
	n, end := new(world).nodeAnd(t, Config{Bootstrap: []string{mute.LocalAddr().String()}})
	looked, written := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := n.Lookup(t.Context(), secretOf(1), testTime)
		looked <- err
	}()
	go func() { written <- n.Publish(t.Context(), secretOf(1), idOf(1), []byte("x"), testTime) }()
	eventually(t, func() bool { return n.Status().Queries > 1 })
	start := time.Now()
	end()
	for _, ended := range []chan error{looked, written} {
		if err := <-ended; !errors.Is(err, ErrNotRunning) {
			t.Errorf("ended with %v", err)
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	again := new(world).node(t, Config{Bootstrap: []string{mute.LocalAddr().String()}})
	go func() {
		_, err := again.Lookup(ctx, secretOf(1), testTime)
		looked <- err
	}()
	eventually(t, func() bool { return again.Status().Queries > 0 })
	cancel()
	if err := <-looked; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Another writer comes between the reading and the writing, at every node.
func TestConflictIsRetried(t *testing.T) {
	t.Parallel()
	ids := together(2)
	s := slotAt(testTime)
	l := locationOf(secretOf(1), s, indexOf(idOf(ids[0]), s))
	var puts atomic.Int32
	w := newWorld(t, 8, func(i int, w *world, _ net.PacketConn) func(*krpc.Msg, net.Addr) bool {
		var once sync.Once
		return func(q *krpc.Msg, _ net.Addr) bool {
			if q.Q == "put" {
				puts.Add(1)
				once.Do(func() {
					v := l.sealValue([]Record{recordOf(ids[1], testTime, 100)})
					item, err := bep44.NewItem(v, l.salt, testTime.Unix()+7, 0, l.key)
					if err == nil {
						err = bep44.NewWrapper(w.stores[i], time.Hour).Put(item)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			return true
		}
	})
	n := w.node(t, Config{})
	mustPublish(t, n, ids[0], "me too")
	if got := lookup(t, n, testTime); len(got) != 2 || got[KeyOf(idOf(ids[0]))] != "me too" {
		t.Errorf("found %v", got)
	}
	if n := puts.Load(); n != 16 {
		t.Errorf("%d puts, want two at each of 8 nodes", n)
	}
}

// The library's nodes compare what they should not (see putting), which would show with the third writer.
func TestWritersMerge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, nil)
	reader := w.node(t, Config{})
	ids := together(4)
	for i, id := range ids {
		mustPublish(t, w.node(t, Config{}), id, names(i))
		if got := lookup(t, reader, testTime); len(got) != i+1 {
			t.Fatalf("after %d writers there are %v", i+1, got)
		}
	}
	mustPublish(t, w.node(t, Config{}), ids[0], "moved")
	if got := lookup(t, reader, testTime); len(got) != 4 || got[KeyOf(idOf(ids[0]))] != "moved" {
		t.Errorf("after the first one moved there are %v", got)
	}
}

func TestWritersAtOnceMerge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, nil)
	reader := w.node(t, Config{})
	ids := together(4)
	writeAtOnce(t, w, ids, Config{})
	if got := lookup(t, reader, testTime); len(got) != len(ids) {
		t.Errorf("found %v", got)
	}
}

// writeAtOnce has one node for each id publish at the same time.
func writeAtOnce(t *testing.T, w *world, ids []byte, cfg Config) {
	t.Helper()
	var wg sync.WaitGroup
	for i, id := range ids {
		n := w.node(t, cfg)
		wg.Go(func() {
			if err := n.Publish(t.Context(), secretOf(1), idOf(id), []byte(names(i)), testTime); err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestInsidersRubbishIsIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, nil)
	writer, insider := w.node(t, Config{}), w.node(t, Config{})
	s := slotAt(testTime)
	own, other := together(2)[0], byte(1)
	for indexOf(idOf(other), s) == indexOf(idOf(own), s) {
		other++
	}
	at := locationOf(secretOf(1), s, indexOf(idOf(own), s))
	mustPublish(t, writer, other, "elsewhere")
	for i, v := range []any{
		"short", make([]byte, sealedSize), make([]byte, 990),
		[]any{"a", "list"},
		map[string]any{"a": 1},
		locationOf(secretOf(1), s+1, 0).sealValue(nil),
	} {
		insert(t, insider, at, 1<<33+int64(i), v)
		if got := lookup(t, writer, testTime); len(got) != 1 || got[KeyOf(idOf(other))] != "elsewhere" {
			t.Errorf("value %d: found %v", i, got)
		}
	}
	mustPublish(t, writer, own, "over it")
	if got := lookup(t, insider, testTime); len(got) != 2 {
		t.Errorf("written over rubbish: found %v", got)
	}
	insert(t, insider, at, 1<<63-1, "closed")
	if err := writer.Publish(t.Context(), secretOf(1), idOf(own), []byte("x"), testTime); !errors.Is(err, ErrNotStored) {
		t.Errorf("publish to a closed location: %v", err)
	}
}

func TestDeadBootstrapDelaysNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, nil)
	mute := listen(t, netip.MustParseAddr("127.7.9.1"))
	defer mute.Close()
	dead := []string{"nobody.invalid:6881", "no port", "127.7.9.9:9", mute.LocalAddr().String()}
	n := w.node(t, Config{Bootstrap: append(dead, w.addrs[3].String())})
	start := time.Now()
	mustPublish(t, n, 1, "x")
	if took := time.Since(start); took > 2500*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestSavedNodesNeedNoBootstrap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, nil)
	first, end := w.nodeAnd(t, Config{})
	mustPublish(t, first, 1, "x")
	saved := first.Save()
	end()
	if len(saved) > 1+maxContacts*contactSize {
		t.Errorf("%d bytes", len(saved))
	}
	again := w.node(t, Config{Bootstrap: []string{}, Nodes: saved})
	if s := again.Status(); s.Nodes < 7 || s.Good != 0 {
		t.Errorf("status after loading: %+v", s)
	}
	if got := lookup(t, again, testTime); len(got) != 1 {
		t.Errorf("found %v", got)
	}
	stale := New(Config{Bootstrap: []string{}, Nodes: saved[:len(saved)-1]})
	if s := stale.Status(); s.Nodes != 0 {
		t.Errorf("malformed nodes loaded: %+v", s)
	}
}

// Saved nodes that are all gone are given up for the bootstrap nodes.
func TestStaleNodesFallBackToBootstrap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, nil)
	var gone contacts
	for i := range 30 {
		gone.answered(contact{id: nodeID{byte(i)}, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 7, 8, byte(i)}), 9)}, testTime)
	}
	n := w.node(t, Config{Nodes: gone.save()})
	start := time.Now()
	mustPublish(t, n, 1, "x")
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestServingNodesCarryItems(t *testing.T) {
	t.Parallel()
	var w world
	var nodes []*Node
	for range 8 {
		n := w.node(t, Config{Serve: true, Bootstrap: append([]string{}, first(nodes)...)})
		nodes = append(nodes, n)
		if len(nodes) > 1 {
			n.get(t.Context(), n.running(), locationOf(secretOf(1), 0, 0), nil) // makes it known
		}
	}
	eventually(t, func() bool { return nodes[0].Status().Good == len(nodes)-1 })
	reader := w.node(t, Config{Bootstrap: first(nodes)})
	for i, id := range together(3) {
		mustPublish(t, nodes[i+1], id, names(i))
	}
	if got := lookup(t, reader, testTime); len(got) != 3 {
		t.Errorf("found %v", got)
	}
}

func first(nodes []*Node) []string {
	if len(nodes) == 0 {
		return nil
	}
	return []string{nodes[0].Addr().String()}
}

// A fifth of 30 nodes lies, and lookups still find.
func TestFoundAmongLiars(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 30, liars)
	for i := range 3 {
		writer, reader := w.node(t, Config{}), w.node(t, Config{})
		id := identity.PeerID{9, byte(i)}
		start := time.Now()
		if err := writer.Publish(t.Context(), secretOf(1), id, []byte("here"), testTime); err != nil {
			t.Fatal(err)
		}
		published := time.Since(start)
		start = time.Now()
		if got := lookup(t, reader, testTime); got[KeyOf(id)] != "here" {
			t.Errorf("found %v", got)
		}
		t.Logf("published in %v, found in %v", published, time.Since(start))
	}
}

// A stranger's flood is dropped unread, and does not keep a lookup from its answers.
func TestFloodDoesNotHinder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8, nil)
	n := w.node(t, Config{Serve: true})
	mustPublish(t, n, 1, "x")
	flooder := listen(t, netip.MustParseAddr("127.7.9.1"))
	defer flooder.Close()
	to := net.UDPAddrFromAddrPort(n.Addr())
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for _, pkt := range deadly {
				flooder.WriteTo([]byte(pkt), to)
			}
			flooder.WriteTo([]byte("d1:ad2:id"+id20+"e1:q4:ping1:t1:x1:y1:qe"), to)
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	got := lookup(t, n, testTime)
	close(stop)
	<-stopped
	if len(got) != 1 {
		t.Errorf("found %v", got)
	}
	if s := n.Status(); s.Dropped < 1000 {
		t.Errorf("dropped %d", s.Dropped)
	} else {
		t.Logf("dropped %d", s.Dropped)
	}
}
