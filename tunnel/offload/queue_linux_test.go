package offload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openTUN makes a TUN with virtio-net headers on the host, up and with addresses.
func openTUN(t testing.TB, h *netlab.Host, flags uint16, addrs ...string) (f *os.File) {
	t.Helper()
	err := h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "tun")
		link, err := netlink.LinkByName("tun0")
		if err != nil {
			return err
		}
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		return errors.Join(netlink.LinkSetMTU(link, 1400), netlink.LinkSetUp(link))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// pipe carries what comes out of one TUN into another, as a tunnel would.
type pipe struct {
	from  *Queue
	to    *Join
	split Split
	arena []byte
	used  int
	fail  error
}

func newPipe(from, to *Queue) *pipe {
	return &pipe{from: from, to: to.NewJoin(), arena: make([]byte, 1<<20)}
}

func (p *pipe) read(buf []byte) bool {
	if p.fail = p.split.Start(buf); p.fail != nil {
		p.fail = fmt.Errorf("%w: %x", p.fail, buf[:min(len(buf), 80)])
		return false
	}
	for p.split.Size() > 0 {
		n := p.split.Fill(p.arena[p.used:])
		p.to.Add(p.arena[p.used : p.used+n : p.used+n])
		p.used += n
	}
	return p.used < len(p.arena)/2
}

func (p *pipe) run() error {
	read := p.read
	for {
		p.used = 0
		if err := p.from.ReadBatch(read); err != nil {
			return err
		}
		if err := errors.Join(p.fail, p.to.Flush()); err != nil {
			return err
		}
	}
}

// world is two hosts whose TUNs are joined.
type world struct {
	a, b   *netlab.Host
	fa, fb *os.File
	ab, ba *pipe
}

func newWorld(t testing.TB, uso bool) *world {
	lab := netlab.New(t)
	w := &world{a: lab.Host("a"), b: lab.Host("b")}
	w.fa = openTUN(t, w.a, unix.IFF_VNET_HDR, "10.77.0.1/24", "fd77::1/64")
	w.fb = openTUN(t, w.b, unix.IFF_VNET_HDR, "10.77.0.2/24", "fd77::2/64")
	qa, qb := newQueue(t, w.fa, uso), newQueue(t, w.fb, uso)
	w.ab, w.ba = newPipe(qa, qb), newPipe(qb, qa)
	var wg sync.WaitGroup
	for _, p := range []*pipe{w.ab, w.ba} {
		wg.Go(func() {
			if err := p.run(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("pipe: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		qa.Stop()
		qb.Stop()
		wg.Wait()
	})
	return w
}

func newQueue(t testing.TB, f *os.File, uso bool) *Queue {
	t.Helper()
	q, err := NewQueue(f)
	if err != nil {
		t.Fatal(err)
	}
	if !q.Offloads().TCP {
		t.Error("no TSO")
	}
	if !uso {
		q.offloads.UDP = false
		_ = q.conn.Control(func(fd uintptr) {
			err = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return q
}

// TestKernels: what two kernels send to each other arrives as it was sent.
func TestKernels(t *testing.T) {
	for _, uso := range []bool{true, false} {
		t.Run(fmt.Sprintf("USO=%v", uso), func(t *testing.T) {
			w := newWorld(t, uso)
			uso = uso && w.ab.from.Offloads().UDP
			both := []string{"10.77.0.2", "fd77::2"}
			for _, addr := range both {
				before := w.ab.to.Stats()
				w.udp(t, addr)
				if st := w.ab.to.Stats(); (st.Joined-before.Joined > 100) != uso {
					t.Errorf("UDP to %s: joined %d", addr, st.Joined-before.Joined)
				}
			}
			for _, addr := range both {
				before := w.ab.to.Stats()
				w.tcp(t, addr, 24<<20)
				if st := w.ab.to.Stats(); st.Joined-before.Joined < (st.Packets-before.Packets)/2 {
					t.Errorf("TCP to %s: %+v", addr, st)
				}
			}
			for _, p := range []*pipe{w.ab, w.ba} {
				st := p.to.Stats()
				t.Logf("%+v", st)
				if st.Refused+st.Full+st.Invalid+st.Down != 0 {
					t.Errorf("not written: %+v", st)
				}
			}
		})
	}
}

// tcp sends size bytes from a to b and back.
func (w *world) tcp(t *testing.T, addr string, size int) {
	t.Helper()
	ln, err := w.b.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := io.Copy(c, c); err != nil {
			t.Errorf("echo: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := w.a.Dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	sent, got := sha256.New(), sha256.New()
	wg.Go(func() {
		r := rand.New(rand.NewPCG(1, 1))
		for left := size; left > 0; {
			b := randomBytes(r, min(left, 1+r.IntN(200_000)))
			left -= len(b)
			sent.Write(b)
			if _, err := c.Write(b); err != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
		_ = c.(*net.TCPConn).CloseWrite()
	})
	n, err := io.Copy(got, c)
	if err != nil || n != int64(size) {
		t.Errorf("%d bytes came back, %v", n, err)
	}
	wg.Wait()
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("other bytes came back")
	}
}

// udp sends bursts of datagrams from a to b, as one GSO send each, and waits for their arrival.
func (w *world) udp(t *testing.T, addr string) {
	t.Helper()
	to, err := w.b.ListenPacket("udp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := w.a.Dial(t.Context(), "udp", to.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	r := rand.New(rand.NewPCG(2, 2))
	buf := make([]byte, 2000)
	for range 60 {
		size := 1 + r.IntN(1300)
		segmentBy(t, from.(*net.UDPConn), size)
		burst := randomBytes(r, size*(1+r.IntN(30))+r.IntN(size))
		if _, err := from.Write(burst); err != nil {
			t.Fatal(err)
		}
		_ = to.SetReadDeadline(time.Now().Add(10 * time.Second))
		for rest := burst; len(rest) > 0; {
			n, _, err := to.ReadFrom(buf)
			if err != nil {
				t.Fatalf("%d of %d bytes missing: %v", len(rest), len(burst), err)
			}
			if want := min(size, len(rest)); n != want || !bytes.Equal(buf[:n], rest[:n]) {
				t.Fatalf("a datagram of %d bytes, want %d", n, want)
			}
			rest = rest[n:]
		}
	}
}

// segmentBy sets UDP_SEGMENT.
func segmentBy(t *testing.T, c *net.UDPConn, size int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size)
	})
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

func TestNewQueueRefuses(t *testing.T) {
	host := netlab.New(t).Host("a")
	if _, err := NewQueue(openTUN(t, host, 0)); err == nil {
		t.Error("a TUN without virtio-net headers")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := NewQueue(r); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("a pipe: %v", err)
	}
	_ = r.Close()
	if _, err := NewQueue(r); err == nil {
		t.Error("a closed file")
	}
}

// TestReadBatch: how a batch ends.
func TestReadBatch(t *testing.T) {
	host := quiet(t)
	f := openTUN(t, host, unix.IFF_VNET_HDR, "10.77.0.1/24")
	q := newQueue(t, f, true)
	never := func([]byte) bool { t.Error("a packet"); return false }

	if err := q.PollBatch(never); err != nil {
		t.Errorf("nothing to poll: %v", err)
	}

	// It reads what there is, up to its limit and up to the caller's.
	c, err := host.Dial(t.Context(), "udp4", "10.77.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range batchReads + 10 {
		_, _ = c.Write([]byte("datagram"))
	}
	for _, tt := range []struct{ stop, want int }{{3, 3}, {1000, batchReads}, {1000, 7}} {
		n := 0
		if err := q.ReadBatch(func(buf []byte) bool {
			if !bytes.HasSuffix(Header(buf), []byte("datagram")) {
				t.Errorf("read %x", buf)
			}
			n++
			return n < tt.stop
		}); err != nil || n != tt.want {
			t.Errorf("%d reads, %v, want %d", n, err, tt.want)
		}
	}

	// A buffer that is kept stays as it is.
	_, _ = c.Write([]byte("kept"))
	var kept []byte
	if err := q.ReadBatch(func(buf []byte) bool {
		kept = buf
		q.Keep(make([]byte, MaxRead))
		return false
	}); err != nil {
		t.Error(err)
	}
	_, _ = c.Write([]byte("next"))
	if err := q.ReadBatch(func([]byte) bool { return false }); err != nil || !bytes.HasSuffix(kept, []byte("kept")) {
		t.Errorf("kept %x, %v", kept, err)
	}

	// Stop wakes it, also one that begins later.
	woken := make(chan error)
	go func() { woken <- q.ReadBatch(never) }()
	j := q.NewJoin()
	q.Stop()
	if err := <-woken; !errors.Is(err, os.ErrClosed) {
		t.Errorf("stopped: %v", err)
	}
	if err := q.ReadBatch(never); !errors.Is(err, os.ErrClosed) {
		t.Errorf("stopped before: %v", err)
	}

	// Close ends writers too.
	_ = f.Close()
	j.Add(spec{udp: true}.build())
	if err := j.Flush(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Flush: %v", err)
	}
}

// quiet makes a host whose TUN sends nothing by itself.
func quiet(t *testing.T) *netlab.Host {
	host := netlab.New(t).Host("a")
	host.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	return host
}

// TestLink: an interface that is down takes nothing, one that is deleted ends the reads.
func TestLink(t *testing.T) {
	host := quiet(t)
	f := openTUN(t, host, unix.IFF_VNET_HDR, "10.77.0.1/24")
	q := newQueue(t, f, true)
	change := func(fn func(netlink.Link) error) {
		t.Helper()
		if err := host.Do(func() error {
			link, err := netlink.LinkByName("tun0")
			if err != nil {
				return err
			}
			return fn(link)
		}); err != nil {
			t.Fatal(err)
		}
	}
	j := q.NewJoin()
	send := func(want Stats) {
		t.Helper()
		for _, p := range flow(1, 5) {
			j.Add(p)
		}
		j.Add(spec{udp: true}.build())
		if err := j.Flush(); err != nil {
			t.Fatal(err)
		}
		got := j.Stats()
		want.Packets, want.Bytes = got.Packets, got.Bytes
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	send(Stats{Joined: 5, Writes: 2})
	if err := j.write([][]byte{{1, 0x7f, 9: 0}, flow(1, 1)[0]}); !errors.Is(err, ErrRefused) {
		t.Errorf("an unheard-of segmentation: %v", err)
	}
	change(netlink.LinkSetDown)
	send(Stats{Joined: 5, Writes: 2, Down: 6})
	change(netlink.LinkSetUp)
	send(Stats{Joined: 10, Writes: 4, Down: 6})
	woken := make(chan error)
	go func() { woken <- q.ReadBatch(func([]byte) bool { return true }) }()
	change(netlink.LinkDel)
	err := <-woken
	if _, ok := errors.AsType[*os.SyscallError](err); !ok {
		t.Errorf("the interface is gone: %v", err)
	}
	send(Stats{Joined: 10, Writes: 4, Down: 12})
}

func TestReadBatchAllocations(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	host := quiet(t)
	f := openTUN(t, host, unix.IFF_VNET_HDR, "10.77.0.1/24")
	q := newQueue(t, f, true)
	c, err := host.Dial(t.Context(), "udp4", "10.77.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	j := q.NewJoin()
	pkt, read, in := []byte("datagram"), func([]byte) bool { return true }, flow(1, 5)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = c.Write(pkt)
		if err := q.ReadBatch(read); err != nil {
			t.Error(err)
		}
		for _, p := range in {
			j.Add(p)
		}
		_ = j.Flush()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkKernels is one TCP connection between two kernels, all of it on this machine: what a tunnel without
// encryption and network would do.
func BenchmarkKernels(b *testing.B) {
	w := newWorld(b, true)
	ln, err := w.b.Listen("tcp", "10.77.0.2:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	done := make(chan int64)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			close(done)
			return
		}
		n, _ := io.Copy(io.Discard, c)
		_ = c.Close()
		done <- n
	}()
	c, err := w.a.Dial(b.Context(), "tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	buf, sent := make([]byte, 256<<10), int64(0)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		n, err := c.Write(buf)
		if err != nil {
			b.Fatal(err)
		}
		sent += int64(n)
	}
	_ = c.Close()
	if got := <-done; got != sent {
		b.Errorf("%d bytes arrived of %d", got, sent)
	}
	st := w.ab.to.Stats()
	b.ReportMetric(float64(st.Packets)/float64(st.Writes), "packets/write")
}
