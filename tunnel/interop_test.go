package tunnel

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// plainSocket is one UDP socket of this host: the least that a tunnel needs.
type plainSocket struct {
	conn *net.UDPConn

	mu    sync.Mutex
	peers map[identity.WGKey]*plainPeer
	kept  [][]byte // everything that came or went
}

func newPlainSocket(t testing.TB) *plainSocket {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { _ = c.Close() })
	return &plainSocket{conn: c, peers: make(map[identity.WGKey]*plainPeer)}
}

func (s *plainSocket) port() uint16 { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (s *plainSocket) keep(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, slices.Clone(b))
}

func (s *plainSocket) Legs() int { return 1 }

func (s *plainSocket) Receive(ctx context.Context, _ int, take func(time.Time, []datagram.Train)) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			continue
		}
		s.keep(buf[:n])
		take(time.Now(), []datagram.Train{{Data: buf[:n], Size: max(n, 1), From: datagram.Source{Addr: from}}})
	}
	return nil
}

func (s *plainSocket) PeerByKey(key identity.WGKey) datagram.Peer { return s.peer(key) }

func (s *plainSocket) peer(key identity.WGKey) *plainPeer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[key]
	if p == nil {
		p = &plainPeer{socket: s}
		s.peers[key] = p
	}
	return p
}

func (s *plainSocket) Reply(to *datagram.Source, pkt []byte) {
	s.keep(pkt)
	_, _ = s.conn.WriteToUDPAddrPort(pkt, to.Addr)
}

type plainPeer struct {
	socket *plainSocket

	mu sync.Mutex
	at netip.AddrPort
}

func (p *plainPeer) where() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

func (p *plainPeer) moved(to netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = to
}

// SendAhead is Send: order is not what is tested with it.
func (p *plainPeer) SendAhead(now time.Time, pkts [][]byte) { p.Send(now, pkts) }

func (p *plainPeer) Send(_ time.Time, pkts [][]byte) {
	to := p.where()
	if !to.IsValid() {
		return
	}
	for _, pkt := range pkts {
		p.socket.keep(pkt)
		_, _ = p.socket.conn.WriteToUDPAddrPort(pkt, to)
	}
}

func (p *plainPeer) SendAll(now time.Time, pkt []byte) { p.Send(now, [][]byte{pkt}) }

func (p *plainPeer) Authenticated(_ time.Time, from *datagram.Source, _ int) { p.moved(from.Addr) }

func (p *plainPeer) MaxSize() int { return 0 }

// reference is the wireguard module's device with a TUN of channels.
type reference struct {
	*node
	dev *device.Device
	tun *tuntest.ChannelTUN
}

func newReference(t testing.TB, b byte) *reference {
	t.Helper()
	r := &reference{node: addressesOf(b), tun: tuntest.NewChannelTUN()}
	r.dev = device.NewDevice(r.tun.TUN(), conn.NewStdNetBind(), device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(r.dev.Close)
	private := r.id.WGPrivate()
	r.set(t, "private_key=%s\nlisten_port=0\n", hex.EncodeToString(private[:]))
	if err := r.dev.Up(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reference) set(t testing.TB, format string, args ...any) {
	t.Helper()
	if err := r.dev.IpcSet(fmt.Sprintf(format, args...)); err != nil {
		t.Fatal(err)
	}
}

// know makes n a peer; a port of 0: where it is comes with its first packet.
func (r *reference) know(t testing.TB, n *node, psk identity.Secret, port uint16) {
	t.Helper()
	endpoint := ""
	if port != 0 {
		endpoint = fmt.Sprintf("endpoint=127.0.0.1:%d\n", port)
	}
	r.set(t, "public_key=%s\npreshared_key=%s\n%sallowed_ip=%s/32\nallowed_ip=%s/128\n",
		n.id.WG().Hex(), hex.EncodeToString(psk[:]), endpoint, n.ip4, n.ip6)
}

func (r *reference) port(t testing.TB) uint16 {
	t.Helper()
	text, err := r.dev.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		var port uint16
		if n, _ := fmt.Sscanf(line, "listen_port=%d", &port); n == 1 {
			return port
		}
	}
	t.Fatal("no port")
	return 0
}

// newPlain is a tunnel over a plain socket, without a netstack, and what it got.
func newPlain(t testing.TB, b byte) (*bare, *plainSocket) {
	s := newPlainSocket(t)
	return newBare(t, newAir(), b, func(c *Config) { c.Socket = s }), s
}

// exchange sends n packets from each to the other and expects all of them.
func exchange(t *testing.T, x *bare, r *reference, n int) {
	t.Helper()
	out := newOutbox(x.tap, stackArena)
	var came, went []int
	timeout := time.After(20 * time.Second)
	take := func(pkt []byte) { went = append(went, number(pkt)) }
	for i := range n {
		out.begin(time.Now())
		out.add(x.tap.table.Load().owner(r.ip4), numbered(x.ip4, r.ip4, i, 40+i%1240))
		out.flush()
		select {
		case r.tun.Outbound <- numbered(r.ip4, x.ip4, i, 40+i%1240):
		case <-timeout:
			t.Fatal("the device's TUN is stuck")
		}
		for len(went) <= i-32 || i == n-1 && len(went) < n { // keep within socket buffers
			select {
			case pkt := <-r.tun.Inbound:
				take(pkt)
			case <-timeout:
				t.Fatalf("the device got %d of %d", len(went), n)
			}
		}
	}
	eventually(t, "the device's packets", func() bool {
		pkts, _ := x.got()
		came = append(came, numbers(pkts)...)
		return len(came) >= n
	})
	if !slices.Equal(came, upTo(n)) || !slices.Equal(went, upTo(n)) {
		t.Errorf("%d and %d packets, not in order", len(came), len(went))
	}
}

// TestInterop runs a tunnel against the reference implementation, in both roles.
func TestInterop(t *testing.T) {
	for _, weBegin := range []bool{true, false} {
		t.Run(fmt.Sprintf("we begin %v", weBegin), func(t *testing.T) {
			x, sock := newPlain(t, 1)
			r := newReference(t, 2)
			x.SetMembers([]Member{r.member()})
			if weBegin {
				r.know(t, x.node, testPSK, 0)
				sock.peer(r.id.WG()).moved(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), r.port(t)))
				x.Renew(r.id.ID())
			} else {
				r.know(t, x.node, testPSK, sock.port())
				r.tun.Outbound <- numbered(r.ip4, x.ip4, 77, 100) // the device begins
				eventually(t, "the device's first packet", func() bool { pkts, _ := x.got(); return len(pkts) == 1 })
			}
			eventually(t, "a session", func() bool { return x.Stats()[r.id.ID()].Session })
			exchange(t, x, r, 1500)

			old := r.port(t)
			r.set(t, "listen_port=0\n") // the device moves
			if r.port(t) == old {
				t.Fatal("the same port")
			}
			r.tun.Outbound <- numbered(r.ip4, x.ip4, 0, 100)
			eventually(t, "a packet from the new place", func() bool { pkts, _ := x.got(); return len(pkts) == 1 })
			exchange(t, x, r, 100)

			x.Renew(r.id.ID()) // while packets flow
			exchange(t, x, r, 1000)
			for what, n := range nonZero(x.Counters()) {
				t.Errorf("%s = %d", what, n)
			}
			replay(t, x, sock)
		})
	}
}

// replay sends all that was captured once more, to the socket it came to and from elsewhere.
func replay(t *testing.T, x *bare, sock *plainSocket) {
	t.Helper()
	sock.mu.Lock()
	kept := sock.kept
	sock.kept = nil
	sock.mu.Unlock()
	before := x.Counters()
	there := sock.peers
	places := make(map[identity.WGKey]netip.AddrPort)
	for key, p := range there {
		places[key] = p.where()
	}
	in := x.newInbox() // as another leg
	from := fake(3)
	for _, d := range kept {
		in.take(time.Now(), []datagram.Train{{Data: slices.Clone(d), Size: len(d), From: from}})
	}
	x.sync(t)
	if pkts, _ := x.got(); len(pkts) != 0 {
		t.Errorf("%d packets came twice", len(pkts))
	}
	if got := x.Counters()["in_replayed"] - before["in_replayed"]; got < 1000 {
		t.Errorf("%d replays of %d datagrams", got, len(kept))
	}
	for key, p := range there {
		if p.where() != places[key] {
			t.Error("a replay moves the member")
		}
	}
	for _, d := range kept {
		if d[0] == noise.TypeData && strings.Contains(string(d), string(x.ip4.AsSlice())+string([]byte{100, 77})) {
			t.Fatal("an address is to be read")
		}
	}
}

// TestInteropWrongPSK: no session with another pre-shared key, whoever begins; an older key of ours still does.
func TestInteropWrongPSK(t *testing.T) {
	x, sock := newPlain(t, 1)
	r := newReference(t, 2)
	older := identity.Secret{4, 4}
	r.know(t, x.node, older, sock.port())
	sock.peer(r.id.WG()).moved(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), r.port(t)))
	x.SetMembers([]Member{r.member()})
	x.Renew(r.id.ID())
	r.tun.Outbound <- numbered(r.ip4, x.ip4, 0, 100)
	var bad uint64
	eventually(t, "a response that does not fit", func() bool {
		done := make(chan struct{})
		x.do(func(o *owner) {
			bad = o.machine.Counters().BadResponse
			close(done)
		})
		<-done
		return bad > 0
	})
	if pkts, _ := x.got(); len(pkts) != 0 || x.Stats()[r.id.ID()].Session {
		t.Error("a session without a common pre-shared key")
	}
	x.SetMembers([]Member{r.memberWith(testPSK, older)})
	x.Kick(r.id.ID())
	eventually(t, "what the device kept", func() bool { pkts, _ := x.got(); return len(pkts) == 1 })
	exchange(t, x, r, 50)
}
