package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
		_ = raw.send(udpPacket(a.ip4, b.ip4, 77))
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
	_ = raw.send(udpPacket(a.ip4, netip.MustParseAddr("100.77.8.8"), 5))
	find("host unreachable", func(pkt []byte) bool { return pkt[0] == 0x45 && pkt[9] == 1 && pkt[20] == 3 && pkt[21] == 1 })
	_ = raw.send(udpPacket(a.ip6, b.ctl, 5))
	eventually(t, "control is out of reach", func() bool { return a.Counters()["out_control"] == 1 })

	// The service address is served by the netstack.
	n := testNetwork()
	dns, err := a.ListenPacket("udp", netip.AddrPortFrom(n.Service4(), 2000))
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	_ = raw.send(udpPacket(a.ip4, n.Service4(), 33))
	_ = dns.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	size, from, err := dns.ReadFrom(buf)
	if err != nil || size != 33 {
		t.Fatal(size, err)
	}
	_, _ = dns.WriteTo(buf[:size], from)
	find("the service's answer", func(pkt []byte) bool {
		src, _, _, ok := addresses(pkt)
		return ok && src == n.Service4() && len(pkt) == 28+33
	})
	ping(t, a, b, 2000)
	ping(t, b, a, 2000)
}

// setAddress gives the interface an IPv4 address and brings it up.
func setAddress(t *testing.T, name string, ip netip.Addr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, do := range []struct {
		call uint
		ip   netip.Addr
	}{{unix.SIOCSIFADDR, ip}, {unix.SIOCSIFNETMASK, netip.AddrFrom4([4]byte{255, 255, 0, 0})}} {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := ifr.SetInet4Addr(do.ip.AsSlice()); err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlIfreq(fd, do.call, ifr); err != nil {
			t.Fatal(err)
		}
	}
	linkUp(t, name)
}

// TestPrograms has sockets of the OS talk through the TUN: TCP both ways at once, whose segments the kernel hands out
// uncut, and UDP.
func TestPrograms(t *testing.T) {
	needRoot(t)
	sky := newAir()
	a := newNode(t, sky, 1, func(c *Config) { c.Interface = testInterface })
	b := newNode(t, sky, 2, nil)
	know(a, b)
	setAddress(t, testInterface, a.ip4)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	l, err := b.Listen("tcp", netip.AddrPortFrom(b.ip4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			_, err = io.Copy(c, c)
			_ = c.Close()
		}
		ended <- err
	}()
	c, err := a.Dial(ctx, "tcp", netip.AddrPortFrom(b.ip4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	const size = 16 << 20
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{5})
	_, _ = random.Read(data)
	go func() {
		_, _ = c.Write(data)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes came back, %v; %v; %v", len(got), len(data), err, nonZero(a.Counters()), nonZero(b.Counters()))
	}
	if err := <-ended; err != nil {
		t.Errorf("the other side: %v", err)
	}

	echo := echoOn(t, b, netip.AddrPortFrom(b.ip4, 53))
	defer echo.Close()
	u, err := a.Dial(ctx, "udp", netip.AddrPortFrom(b.ip4, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = u.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 2000)
	for size := 1; size <= DefaultMTU-28; size += 97 {
		_, _ = u.Write(data[:size])
		if n, err := u.Read(buf); err != nil || !bytes.Equal(buf[:n], data[:size]) {
			t.Fatalf("echo of %d bytes: %d, %v", size, n, err)
		}
	}
	if s := a.Stats()[b.id.ID()]; s.TxBytes < size || s.RxBytes < size {
		t.Errorf("stats: %+v", s)
	}
	if lost := a.Counters()["in_tun_write"]; lost != 0 {
		t.Errorf("%d packets were refused by the TUN", lost)
	}
}

// echoOn answers datagrams at one address of a node.
func echoOn(t *testing.T, n *node, at netip.AddrPort) io.Closer {
	t.Helper()
	p, err := n.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo(buf[:n], from)
		}
	}()
	return p
}

func TestNoTUN(t *testing.T) {
	needRoot(t)
	n := addressesOf(1)
	n.sock = newAir().socket(n.id.WG())
	cfg := n.config()
	cfg.Interface = testInterface
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
	n := addressesOf(1)
	n.sock = newAir().socket(n.id.WG())
	cfg := n.config()
	cfg.Interface = testInterface
	tunnel, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- tunnel.Run(ctx) }()
	n.Tunnel = tunnel
	n.sync(t) // it runs
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
