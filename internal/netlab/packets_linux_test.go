package netlab

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listenUDP(t *testing.T, h *Host, addr string) net.PacketConn {
	t.Helper()
	pc, err := h.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc
}

func sendUDP(t *testing.T, pc net.PacketConn, to string, data []byte) {
	t.Helper()
	if _, err := pc.WriteTo(data, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
		t.Fatal(err)
	}
}

// recvUDP returns the next datagram and its sender; nothing when none comes soon.
func recvUDP(t *testing.T, pc net.PacketConn, wait time.Duration) (string, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 2000)
	pc.SetReadDeadline(time.Now().Add(wait))
	n, from, err := pc.ReadFrom(buf)
	if err != nil {
		return "", netip.AddrPort{}
	}
	ap := from.(*net.UDPAddr).AddrPort()
	return string(buf[:n]), netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

const (
	soon  = 2 * time.Second
	never = 100 * time.Millisecond
)

// The first packets that look like a handshake initiation are lost, everything else passes.
func TestDropFirstMatching(t *testing.T) {
	a, b, _, _ := pair(t)
	from, to := listenUDP(t, a, "10.1.0.1:7000"), listenUDP(t, b, "10.1.0.2:7001")
	drop := b.DropRule(Match{
		Proto: unix.IPPROTO_UDP, SrcPort: 7000, DstPort: 7001,
		Payload: []byte{1, 0, 0, 0}, First: 2,
	})
	initiation := func(n byte) []byte { return append([]byte{1, 0, 0, 0}, bytes.Repeat([]byte{n}, 144)...) }
	for n := range byte(4) {
		sendUDP(t, from, "10.1.0.2:7001", initiation(n))
		sendUDP(t, from, "10.1.0.2:7001", []byte{4, 0, 0, 0, n})
	}
	for _, want := range []string{
		"\x04\x00\x00\x00\x00", "\x04\x00\x00\x00\x01",
		string(initiation(2)), "\x04\x00\x00\x00\x02", string(initiation(3)), "\x04\x00\x00\x00\x03",
	} {
		if got, _ := recvUDP(t, to, soon); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	if got := drop.Count(); got != 2 {
		t.Errorf("count %d, want 2", got)
	}
	drop.Remove()
	drop.Remove()
	if got := drop.Count(); got != 2 {
		t.Errorf("count after removal %d, want 2", got)
	}
}

func TestDropRuleFields(t *testing.T) {
	for _, tt := range []struct {
		name  string
		match Match
		lost  bool
	}{
		{"everything", Match{}, true},
		{"the interface", Match{Iface: "eth0"}, true},
		{"another interface", Match{Iface: "eth1"}, false},
		{"UDP", Match{Proto: unix.IPPROTO_UDP}, true},
		{"TCP", Match{Proto: unix.IPPROTO_TCP}, false},
		{"another source port", Match{Proto: unix.IPPROTO_UDP, SrcPort: 1}, false},
		{"another destination port", Match{Proto: unix.IPPROTO_UDP, DstPort: 1}, false},
		{"bytes at an offset", Match{Proto: unix.IPPROTO_UDP, Payload: []byte("load"), Offset: 3}, true},
		{"bytes elsewhere", Match{Proto: unix.IPPROTO_UDP, Payload: []byte("load")}, false},
		{"the source", Match{Src: netip.MustParseAddr("fd01::1")}, true},
		{"another source", Match{Src: netip.MustParseAddr("fd01::2")}, false},
		{"the destination", Match{Dst: netip.MustParseAddr("fd01::2")}, true},
		{"another family", Match{Dst: netip.MustParseAddr("10.1.0.2")}, false},
		{"what is forwarded", Match{Hooks: Forward}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b, _, _ := pair(t)
			from, to := listenUDP(t, a, "[fd01::1]:7000"), listenUDP(t, b, "[fd01::2]:7001")
			sendUDP(t, from, "[fd01::2]:7001", []byte("first")) // with neighbour discovery, which "everything" stops
			if got, _ := recvUDP(t, to, soon); got != "first" {
				t.Fatalf("before the rule: %q", got)
			}
			drop := b.DropRule(tt.match)
			sendUDP(t, from, "[fd01::2]:7001", []byte("payload"))
			got, _ := recvUDP(t, to, never)
			if lost := got == ""; lost != tt.lost || lost != (drop.Count() > 0) {
				t.Errorf("got %q, count %d, want lost %v", got, drop.Count(), tt.lost)
			}
			drop.Remove()
			sendUDP(t, from, "[fd01::2]:7001", []byte("again"))
			if got, _ := recvUDP(t, to, soon); got != "again" {
				t.Errorf("after removal: %q", got)
			}
		})
	}
}

func TestBlockUDP(t *testing.T) {
	router, in, out1, _ := natWorld(t, PortRestricted)
	s, client := listenUDP(t, out1, "198.51.100.2:9000"), listenUDP(t, in, "192.168.1.2:7777")
	block := router.BlockUDP()
	sendUDP(t, client, "198.51.100.2:9000", []byte("hello"))
	if got, _ := recvUDP(t, s, never); got != "" || block.Count() != 1 {
		t.Errorf("got %q, count %d", got, block.Count())
	}
	if _, err := in.PingUntil(within(t, soon), netip.MustParseAddr("198.51.100.2")); err != nil {
		t.Errorf("other protocols: %v", err)
	}
	local := out1.BlockUDP()
	_, err := s.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.3:1")))
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("own send: %v, want not permitted", err)
	}
	local.Remove()
	block.Remove()
	sendUDP(t, client, "198.51.100.2:9000", []byte("hello"))
	if got, _ := recvUDP(t, s, soon); got != "hello" {
		t.Errorf("after removal: %q", got)
	}
}

func TestCapture(t *testing.T) {
	a, b, ia, _ := pair(t)
	from, to := listenUDP(t, a, "10.1.0.1:7000"), listenUDP(t, b, "10.1.0.2:7001")
	sendUDP(t, from, "10.1.0.2:7001", []byte("before the capture"))
	recvUDP(t, to, soon)
	c := a.Capture(ia.Name())
	sendUDP(t, from, "10.1.0.2:7001", []byte("there is a secret in it"))
	if !c.Contains([]byte("secret")) {
		t.Error("sent frame not seen as soon as it was sent")
	}
	recvUDP(t, to, soon)
	sendUDP(t, to, "10.1.0.1:7000", []byte("and back"))
	recvUDP(t, from, soon)
	c.Stop()
	sendUDP(t, from, "10.1.0.2:7001", []byte("after the capture"))
	for text, want := range map[string]bool{
		"secret": true, "and back": true, "before the capture": false, "after the capture": false,
	} {
		if got := c.Contains([]byte(text)); got != want {
			t.Errorf("contains %q: %v, want %v", text, got, want)
		}
	}
	for _, f := range c.Packets() {
		if out := bytes.Contains(f.Data, []byte("secret")); out && !f.Outgoing ||
			bytes.Contains(f.Data, []byte("and back")) && f.Outgoing {
			t.Errorf("wrong direction of %q", f.Data)
		}
	}
	c.Stop()
}
