package tunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const testInterface = "mntest0"

// linkUp sets the interface up, without addresses.
func linkUp(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}

// rawSender sends whole IP packets out of the interface.
type rawSender struct {
	fd   int
	link int
}

func newRawSender(t *testing.T, name string) *rawSender {
	t.Helper()
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index}); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return &rawSender{fd, ifi.Index}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (r *rawSender) send(pkt []byte) error {
	proto := uint16(unix.ETH_P_IP)
	if pkt[0]>>4 == 6 {
		proto = unix.ETH_P_IPV6
	}
	return unix.Sendto(r.fd, pkt, 0, &unix.SockaddrLinklayer{Protocol: htons(proto), Ifindex: r.link})
}

// receive gives the next packet that came out of the TUN, nil when there is none for a while.
func (r *rawSender) receive() []byte {
	buf := make([]byte, 2000)
	n, from, err := unix.Recvfrom(r.fd, buf, 0)
	if ll, ok := from.(*unix.SockaddrLinklayer); err != nil || ok && ll.Pkttype == unix.PACKET_OUTGOING {
		return nil
	}
	return buf[:n]
}

// TestDeadlineWake: packets of the queue get out promptly while the TUN is idle, and while it is flooded, and none of
// either kind is lost or stuck.
func TestDeadlineWake(t *testing.T) {
	needRoot(t)
	dev, err := tun.CreateTUN(testInterface, DefaultMTU)
	if err != nil {
		t.Fatal(err)
	}
	x := newTapTest()
	tap := newTap(dev, DefaultMTU, x.c)
	if tap.pumped {
		t.Fatal("the TUN's file has no deadlines")
	}
	tap.self.Store(x.tap.self.Load())
	tap.table.Store(x.tap.table.Load())
	x.entry().state.Store(open)
	linkUp(t, testInterface)

	var injected, fromTUN atomic.Int64
	arrived := make(chan struct{}, 1<<16)
	var wg sync.WaitGroup
	wg.Go(tap.run)
	wg.Go(func() {
		bufs, sizes := make([][]byte, tap.BatchSize()), make([]int, tap.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, 65535)
		}
		for {
			n, err := tap.Read(bufs, sizes, headroom)
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("Read: %v", err)
				}
				return
			}
			for i := range n {
				switch sizes[i] {
				case 28 + 3:
					injected.Add(1)
					arrived <- struct{}{}
				case 28 + 500:
					fromTUN.Add(1)
				}
			}
		}
	})
	one := datagram(x.me.ip4, x.peer.ip4, 3)
	worst := func(n int) (max time.Duration) {
		for range n {
			start := time.Now()
			tap.send(one)
			select {
			case <-arrived:
			case <-time.After(10 * time.Second):
				t.Fatal("an injected packet is stuck")
			}
			if d := time.Since(start); d > max {
				max = d
			}
		}
		return max
	}
	t.Logf("idle TUN: slowest of 2000 after %v", worst(2000))

	raw := newRawSender(t, testInterface)
	var sent atomic.Int64
	stop := make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() {
		pkt := datagram(x.me.ip4, x.peer.ip4, 500)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if raw.send(pkt) == nil {
				sent.Add(1)
			}
		}
	})
	eventually(t, "the flood arrives", func() bool { return fromTUN.Load() > 1000 })
	t.Logf("busy TUN: slowest of 2000 after %v", worst(2000))
	before := fromTUN.Load()
	for range 20000 { // both at once
		tap.send(one)
	}
	eventually(t, "what was queued", func() bool { return injected.Load()+int64(x.c[outQueueFull].Load()) == 24000 })
	eventually(t, "the TUN has its turn", func() bool { return fromTUN.Load() > before })
	close(stop)
	flood.Wait()
	t.Logf("sent %d, read %d, injected %d", sent.Load(), fromTUN.Load(), injected.Load())
	_ = tap.Close()
	wg.Wait()
}

// TestRealTUN runs a whole tunnel over a TUN of the OS.
func TestRealTUN(t *testing.T) {
	needRoot(t)
	sky := newAir()
	a := newNode(t, sky, 1, func(c *Config) { c.Interface = testInterface })
	b := newNode(t, sky, 2, nil)
	know(a, b)
	if a.InterfaceName() != testInterface || a.Userspace() {
		t.Errorf("interface %q", a.InterfaceName())
	}
	// Control works before the interface is up, and after it went down.
	b.meet(a, false)
	a.meet(b, true)
	ping(t, a, b, 100)
	linkUp(t, testInterface)
	raw := newRawSender(t, testInterface)

	// A program's packet reaches the member, and the answer comes back out of the TUN.
	p, err := b.ListenPacket("udp", netip.AddrPortFrom(b.ip4, 2000))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := make(chan net.Addr, 100)
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo(buf[:n], from)
			got <- from
		}
	}()
	eventually(t, "a packet through the TUN", func() bool {
		_ = raw.send(datagram(a.ip4, b.ip4, 77))
		select {
		case from := <-got:
			return from.(*net.UDPAddr).AddrPort().Addr() == a.ip4
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	find := func(what string, ok func(pkt []byte) bool) {
		t.Helper()
		eventually(t, what, func() bool { pkt := raw.receive(); return pkt != nil && ok(pkt) })
	}
	find("the answer", func(pkt []byte) bool { return pkt[9] == 17 && len(pkt) == 28+77 })

	// Nobody there: an ICMP error. A control address: silence and a counter.
	_ = raw.send(datagram(a.ip4, netip.MustParseAddr("100.77.8.8"), 5))
	find("host unreachable", func(pkt []byte) bool { return pkt[0] == 0x45 && pkt[9] == 1 && pkt[20] == 3 && pkt[21] == 1 })
	_ = raw.send(datagram(a.ip6, b.ctl, 5))
	eventually(t, "control is out of reach", func() bool { return a.Counters()["out_control"] == 1 })

	// The service address is served by the netstack.
	n := testNetwork()
	dns, err := a.ListenPacket("udp", netip.AddrPortFrom(n.Service4(), 2000))
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	_ = raw.send(datagram(a.ip4, n.Service4(), 33))
	_ = dns.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	size, from, err := dns.ReadFrom(buf)
	if err != nil || size != 33 {
		t.Fatal(size, err)
	}
	_, _ = dns.WriteTo(buf[:size], from)
	find("the service's answer", func(pkt []byte) bool {
		src, _, ok := addresses(pkt)
		return ok && src == n.Service4() && len(pkt) == 28+33
	})
	ping(t, a, b, 2000)
	ping(t, b, a, 2000)
}

func TestNoTUN(t *testing.T) {
	needRoot(t)
	id := seeded(1)
	sky := newAir()
	cfg := Config{
		PrivateKey: id.WGPrivate(), Network: testNetwork(), Control: addressesOf(1).ctl,
		Bind: sky.bind(id.WG().Hex()), Interface: testInterface, Want: func(identity.PeerID) {},
	}
	first, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := New(cfg); !errors.Is(err, ErrNoTUN) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second one of that name: %v, %v", second, err)
	}
}

// TestInterfaceGone: Run ends with an error when the interface is deleted.
func TestInterfaceGone(t *testing.T) {
	needRoot(t)
	id := seeded(1)
	tunnel, err := New(Config{
		PrivateKey: id.WGPrivate(), Network: testNetwork(), Control: addressesOf(1).ctl,
		Bind: newAir().bind(id.WG().Hex()), Interface: testInterface,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- tunnel.Run(ctx) }()
	tunnel.Stats() // it runs
	deleteLink(t, testInterface)
	if err := <-ended; !errors.Is(err, ErrInterfaceGone) {
		t.Errorf("Run: %v", err)
	}
}

// deleteLink is `ip link del`.
func deleteLink(t *testing.T, name string) {
	t.Helper()
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	msg := make([]byte, 32) // nlmsghdr, ifinfomsg
	msg[0], msg[4], msg[6] = 32, unix.RTM_DELLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK
	msg[20], msg[21] = byte(ifi.Index), byte(ifi.Index>>8)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
}
