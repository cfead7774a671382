package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// flowSize is the payload of a numbered datagram, in bytes.
	flowSize = 200
	// flowBuffer is what a receiving socket may hold: a busy machine must not lose what the network brought.
	flowBuffer = 8 << 20
	// drainFor is how long the last datagrams of a flow may take.
	drainFor = 500 * time.Millisecond
)

// flow is a numbered stream of UDP datagrams between two nodes, through the tunnel, sent by unmodified sockets.
type flow struct {
	name string
	in   net.PacketConn
	out  net.Conn
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	sent     []time.Time // by number; guarded by mu
	arrived  []time.Time // by number, zero: not; guarded by mu
	order    []time.Time // of arrival; guarded by mu
	repeated int         // guarded by mu
}

// startFlow sends datagrams at an even distance until end.
func startFlow(t testing.TB, from, to *node, every time.Duration) *flow {
	t.Helper()
	in, err := to.host.ListenPacket("udp4", netip.AddrPortFrom(to.ip4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := in.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, flowBuffer)
	}); err != nil || set != nil {
		t.Fatalf("receive buffer: %v, %v", err, set)
	}
	out, err := from.host.Dial(t.Context(), "udp4", in.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	f := &flow{name: from.name + " to " + to.name, in: in, out: out, stop: make(chan struct{})}
	f.wg.Go(func() { f.send(every) })
	go f.receive() // ends with its socket
	t.Cleanup(func() { in.Close() })
	return f
}

// send catches up after a pause that the scheduler made, so that the rate is kept.
func (f *flow) send(every time.Duration) {
	defer f.out.Close()
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	pkt := make([]byte, flowSize)
	start := time.Now()
	for seq := 0; ; {
		for ; time.Since(start) >= time.Duration(seq)*every; seq++ {
			binary.BigEndian.PutUint64(pkt, uint64(seq))
			f.mu.Lock()
			f.sent, f.arrived = append(f.sent, time.Now()), append(f.arrived, time.Time{})
			f.mu.Unlock()
			_, _ = f.out.Write(pkt) // what is refused is lost, and counted as that
		}
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
	}
}

func (f *flow) receive() {
	buf := make([]byte, 2*flowSize)
	for {
		n, _, err := f.in.ReadFrom(buf)
		if err != nil {
			return
		}
		now, seq := time.Now(), binary.BigEndian.Uint64(buf)
		f.mu.Lock()
		switch {
		case n != flowSize || seq >= uint64(len(f.arrived)):
		case f.arrived[seq].IsZero():
			f.arrived[seq], f.order = now, append(f.order, now)
		default:
			f.repeated++
		}
		f.mu.Unlock()
	}
}

// end stops sending and takes what is still under way.
func (f *flow) end() {
	close(f.stop)
	f.wg.Wait()
	deadline := time.Now().Add(drainFor)
	for time.Now().Before(deadline) && len(f.lost()) > 0 {
		time.Sleep(5 * time.Millisecond)
	}
	f.in.Close()
}

// lost are the times at which datagrams were sent that have not arrived.
func (f *flow) lost() (at []time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for seq, arrived := range f.arrived {
		if arrived.IsZero() {
			at = append(at, f.sent[seq])
		}
	}
	return at
}

// outage is the longest time without an arrival since a moment, until now.
func (f *flow) outage(since time.Time) (longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := since
	for _, at := range f.order {
		if at.After(since) {
			longest = max(longest, at.Sub(last))
			last = at
		}
	}
	return max(longest, time.Since(last))
}

// first is how long after a moment a datagram arrived that was sent since; false while none has.
func (f *flow) first(since time.Time) (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	best, found := time.Duration(0), false
	for seq, at := range f.arrived {
		if took := at.Sub(since); !at.IsZero() && f.sent[seq].After(since) && (!found || took < best) {
			best, found = took, true
		}
	}
	return best, found
}

// String tells how it went.
func (f *flow) String() string {
	lost := f.lost()
	f.mu.Lock()
	defer f.mu.Unlock()
	var worst time.Duration
	for seq, at := range f.arrived {
		if !at.IsZero() {
			worst = max(worst, at.Sub(f.sent[seq]))
		}
	}
	return fmt.Sprintf("%s: %d sent, %d lost, %d repeated, slowest %v", f.name, len(f.sent), len(lost), f.repeated, worst.Round(time.Millisecond))
}

// flows are a flow each way.
type flows []*flow

func startFlows(t testing.TB, a, b *node, every time.Duration) flows {
	t.Helper()
	return flows{startFlow(t, a, b, every), startFlow(t, b, a, every)}
}

func (fs flows) end() {
	var wg sync.WaitGroup
	for _, f := range fs {
		wg.Go(f.end)
	}
	wg.Wait()
}

// outage is that of the direction which was without for longer.
func (fs flows) outage(since time.Time) (longest time.Duration) {
	for _, f := range fs {
		longest = max(longest, f.outage(since))
	}
	return longest
}

// resume waits until both directions work again, and returns how long after a moment they did.
func (fs flows) resume(t testing.TB, since time.Time, limit time.Duration) (longest time.Duration) {
	t.Helper()
	for _, f := range fs {
		var took time.Duration
		if !waitFor(limit, func() (ok bool) { took, ok = f.first(since); return ok }) {
			t.Fatalf("nothing arrives any more, %v: %v", limit, f)
		}
		longest = max(longest, took)
	}
	return longest
}

// waitFor polls until something is so, or too late.
func waitFor(limit time.Duration, so func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if so() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// talk is a TCP connection between two nodes that lives through whatever happens. With a distance it carries a number
// each time, else as much as it can.
type talk struct {
	far, near net.Conn
	wg        sync.WaitGroup

	mu   sync.Mutex
	last time.Time     // data came; guarded by mu
	gap  time.Duration // the longest between data since mark; guarded by mu
	got  int64         // bytes since mark; guarded by mu
	err  error         // why it ended; guarded by mu
}

// startTalk connects from one node to the other and sends until end.
func startTalk(t testing.TB, from, to *node, every time.Duration) *talk {
	t.Helper()
	listener, err := to.host.Listen("tcp4", netip.AddrPortFrom(to.ip4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := from.host.Dial(ctx, "tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	k := &talk{far: far, near: c, last: time.Now()}
	k.wg.Go(func() { k.fail(k.write(every)) })
	k.wg.Go(func() { k.fail(k.read()) })
	t.Cleanup(func() { c.Close(); far.Close() })
	return k
}

func (k *talk) write(every time.Duration) error {
	if every == 0 {
		_, err := io.CopyBuffer(struct{ io.Writer }{k.near}, zeros{}, make([]byte, 64<<10))
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for seq := uint64(0); ; seq++ {
		if _, err := k.near.Write(binary.BigEndian.AppendUint64(nil, seq)); err != nil {
			return err
		}
		<-tick.C
	}
}

// zeros is a reader without an end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func (k *talk) read() error {
	buf := make([]byte, 256<<10)
	for {
		n, err := k.far.Read(buf)
		if err != nil {
			return err
		}
		k.mu.Lock()
		now := time.Now()
		k.gap, k.last, k.got = max(k.gap, now.Sub(k.last)), now, k.got+int64(n)
		k.mu.Unlock()
	}
}

func (k *talk) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
}

// mark has stall count from now on.
func (k *talk) mark() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gap, k.got = 0, 0
}

// stall is the longest time without data since mark, and how many bytes came since.
func (k *talk) stall() (time.Duration, int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(k.gap, time.Since(k.last)), k.got
}

// end closes the connection. An error is why it had ended before.
func (k *talk) end() error {
	k.mu.Lock()
	err := k.err
	k.mu.Unlock()
	k.near.Close()
	k.far.Close()
	k.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// median of some figures, and the worst.
func median(all []time.Duration) (middle, worst time.Duration) {
	slices.Sort(all)
	return all[len(all)/2], all[len(all)-1]
}
