package e2e

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/tunnel"
)

// deviceBind puts the wireguard module's device on a magic socket. It knows one peer, so that every datagram but an
// initiation is taken for that peer's; the device finds out what is authentic, and tells nobody.
type deviceBind struct {
	conn *magicsock.Conn
	peer identity.WGKey

	mu   sync.Mutex
	stop func() // ends the receivers of this opening; nil: closed. Guarded by mu
}

// deviceEndpoint is the peer, by whatever path; with a source it is where one initiation came from, whoever sent it.
type deviceEndpoint struct {
	peer identity.WGKey
	from *datagram.Source
}

func (e *deviceEndpoint) ClearSrc()           {}
func (e *deviceEndpoint) SrcToString() string { return "" }
func (e *deviceEndpoint) SrcIP() netip.Addr   { return netip.Addr{} }
func (e *deviceEndpoint) DstToString() string { return e.peer.Hex() }
func (e *deviceEndpoint) DstToBytes() []byte  { return []byte(e.DstIP().String()) }

func (e *deviceEndpoint) DstIP() netip.Addr {
	if e.from != nil {
		return e.from.Addr.Addr()
	}
	return netip.AddrFrom16([16]byte(e.peer[:16]))
}

// deviceBatch is how many datagrams the device takes at once.
const deviceBatch = 16

// arrived is a datagram for the device.
type arrived struct {
	pkt []byte
	ep  *deviceEndpoint
}

func (b *deviceBind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stop != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	ctx, cancel := context.WithCancel(context.Background())
	queue := make(chan arrived, 64)
	var legs sync.WaitGroup
	for leg := range b.conn.Legs() {
		legs.Go(func() {
			_ = b.conn.Receive(ctx, leg, func(_ time.Time, trains []datagram.Train) { b.take(ctx, queue, trains) })
		})
	}
	b.stop = func() {
		cancel()
		legs.Wait()
	}
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int, err error) {
		select {
		case <-ctx.Done():
			return 0, net.ErrClosed
		case in := <-queue:
			sizes[0], eps[0] = copy(bufs[0], in.pkt), in.ep
		}
		for n = 1; n < len(bufs) && len(queue) > 0; n++ { // nobody else reads it
			in := <-queue
			sizes[n], eps[n] = copy(bufs[n], in.pkt), in.ep
		}
		return n, nil
	}
	return []conn.ReceiveFunc{receive}, b.conn.Port(), nil
}

// take queues copies of the datagrams; while the device is slow it waits.
func (b *deviceBind) take(ctx context.Context, queue chan<- arrived, trains []datagram.Train) {
	for i := range trains {
		for data, size := trains[i].Data, trains[i].Size; len(data) > 0; data = data[min(size, len(data)):] {
			in := arrived{append([]byte(nil), data[:min(size, len(data))]...), &deviceEndpoint{peer: b.peer}}
			if in.pkt[0] == device.MessageInitiationType {
				from := trains[i].From
				in.ep.from = &from
			}
			select {
			case queue <- in:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (b *deviceBind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
	return nil
}

func (b *deviceBind) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ours := ep.(*deviceEndpoint)
	if !ours {
		return conn.ErrWrongEndpointType
	}
	peer := b.conn.PeerByKey(e.peer)
	switch {
	case e.from != nil:
		for _, pkt := range bufs {
			b.conn.Reply(e.from, pkt)
		}
	case peer == nil:
	case len(bufs[0]) > 0 && bufs[0][0] == device.MessageInitiationType:
		peer.SendAll(time.Now(), bufs[0]) // the device sends one at a time
	default:
		peer.Send(time.Now(), bufs)
	}
	return nil
}

func (b *deviceBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	if s != b.peer.Hex() {
		return nil, fmt.Errorf("no peer %q", s)
	}
	return &deviceEndpoint{peer: b.peer}, nil
}

func (b *deviceBind) SetMark(uint32) error { return nil }
func (b *deviceBind) BatchSize() int       { return deviceBatch }

// end is one end of the test: a socket, and on it either a tunnel or the device.
type end struct {
	id   *identity.Identity
	ip   netip.Addr
	conn *magicsock.Conn
	tun  *tunnel.Tunnel // nil at the device's end
}

func newEnd(t *testing.T, b byte) *end {
	t.Helper()
	e := &end{id: identity.FromSeed(identity.Secret{b, 4}), ip: netip.AddrFrom4([4]byte{100, 77, 1, b})}
	var err error
	e.conn, err = magicsock.New(magicsock.Config{Identity: e.id, Events: func(ev magicsock.Event) {
		if e.tun != nil && ev.Type == magicsock.EventReachable {
			e.tun.Kick(ev.Peer)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func deviceNetwork() netmap.Network {
	id := identity.NetworkID{1, 2, 3}
	return netmap.Network{ID: id, Prefix6: netmap.Prefix6(id), Prefix4: netip.MustParsePrefix("100.77.0.0/16")}
}

// listed is the end in the other's map.
func (e *end) listed() netmap.Peer {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), e.conn.Port())
	return netmap.Peer{ID: e.id.ID(), WG: e.id.WG(), Disco: e.id.Disco(), Endpoints: []netip.AddrPort{at}}
}

func (e *end) know(other *end) {
	e.conn.SetMap(&netmap.Map{
		Network: deviceNetwork(), Self: e.listed(), Peers: []netmap.Peer{other.listed()}, Keys: []identity.Secret{{9}},
	})
}

// devicePair is a tunnel and the device with a socket each and a flow of UDP between them.
type devicePair struct {
	t           *testing.T
	ours        *end
	theirs      *end
	wire        *tuntest.ChannelTUN // of the device
	flow        net.Conn            // of the tunnel
	came, went  chan uint32         // numbers that the tunnel and the device got
	begun       atomic.Int32        // handshakes that the tunnel tried without a session
	toTheDevice netip.AddrPort
	greeting    uint32
}

func newDevicePair(t *testing.T) *devicePair {
	t.Helper()
	p := &devicePair{
		t: t, ours: newEnd(t, 1), theirs: newEnd(t, 2), wire: tuntest.NewChannelTUN(),
		came: make(chan uint32, 10_000), went: make(chan uint32, 10_000), greeting: greetings,
	}
	p.toTheDevice = netip.AddrPortFrom(p.theirs.ip, 2000)
	p.ours.know(p.theirs)
	p.theirs.know(p.ours)
	psk := identity.Secret{5, 6}
	p.startTunnel(psk)
	p.startDevice(psk)
	var err error
	if p.flow, err = p.ours.tun.Dial(t.Context(), "udp", p.toTheDevice); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	over := make(chan struct{})
	readers.Go(p.readTunnel)
	readers.Go(func() { p.readDevice(over) })
	t.Cleanup(func() {
		p.flow.Close()
		close(over)
		readers.Wait()
	})
	return p
}

func (p *devicePair) startTunnel(psk identity.Secret) {
	e, network := p.ours, deviceNetwork()
	var err error
	e.tun, err = tunnel.New(tunnel.Config{
		PrivateKey: e.id.WGPrivate(), Network: network, Control: netmap.ControlAddr(network.ID, e.id.ID()),
		Socket:      e.conn,
		Want:        func(identity.PeerID) { p.begun.Add(1) },
		Established: func(id identity.PeerID, _ bool) { e.conn.Connected(id) },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	e.tun.SetSelf(network, e.ip, netmap.IdentityAddr(network.ID, e.id.ID()))
	e.tun.SetMembers([]tunnel.Member{{
		ID: p.theirs.id.ID(), WG: p.theirs.id.WG(), IPs: []netip.Addr{p.theirs.ip}, PSKs: []identity.Secret{psk},
	}})
	p.run(e.conn.Run, e.tun.Run)
}

func (p *devicePair) startDevice(psk identity.Secret) {
	e := p.theirs
	p.run(e.conn.Run)
	dev := device.NewDevice(p.wire.TUN(), &deviceBind{conn: e.conn, peer: p.ours.id.WG()}, device.NewLogger(device.LogLevelSilent, ""))
	p.t.Cleanup(dev.Close)
	private, key := e.id.WGPrivate(), p.ours.id.WG().Hex()
	err := dev.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=%s\npreshared_key=%s\nallowed_ip=%s/32\n",
		hex.EncodeToString(private[:]), key, key, hex.EncodeToString(psk[:]), p.ours.ip))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		p.t.Fatal(err)
	}
}

// run runs loops until the test's end.
func (p *devicePair) run(loops ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, loop := range loops {
		wg.Go(func() {
			if err := loop(ctx); err != nil {
				p.t.Error(err)
			}
		})
	}
	p.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

func (p *devicePair) readTunnel() {
	buf := make([]byte, 2048)
	for {
		n, err := p.flow.Read(buf)
		if err != nil {
			return
		}
		if n >= 4 {
			p.came <- binary.BigEndian.Uint32(buf)
		}
	}
}

func (p *devicePair) readDevice(over <-chan struct{}) {
	for {
		select {
		case pkt := <-p.wire.Inbound:
			if len(pkt) >= 32 && pkt[9] == 17 {
				p.went <- binary.BigEndian.Uint32(pkt[28:])
			}
		case <-over:
			return
		}
	}
}

// greetings are numbers from here on: they may get lost.
const greetings = 1 << 20

// payload is a number with padding. Packets that must arrive stay below the size from which a socket whose reader falls
// behind drops one.
func payload(n uint32) []byte {
	padding := n % 400
	if n >= greetings {
		padding = n % 1200
	}
	return append(binary.BigEndian.AppendUint32(nil, n), make([]byte, padding)...)
}

// fromTunnel sends a number to the device.
func (p *devicePair) fromTunnel(n uint32) {
	if _, err := p.flow.Write(payload(n)); err != nil {
		p.t.Fatal(err)
	}
}

// fromDevice sends a number to the tunnel.
func (p *devicePair) fromDevice(n uint32) {
	to := p.flow.LocalAddr().(*net.UDPAddr).AddrPort()
	data := payload(n)
	pkt := make([]byte, 28, 28+len(data))
	pkt[0], pkt[8], pkt[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(pkt[2:], uint16(28+len(data)))
	copy(pkt[12:], p.theirs.ip.AsSlice())
	copy(pkt[16:], p.ours.ip.AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(pkt[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(pkt[10:], ^uint16(sum>>16+sum))
	binary.BigEndian.PutUint16(pkt[20:], p.toTheDevice.Port())
	binary.BigEndian.PutUint16(pkt[22:], to.Port())
	binary.BigEndian.PutUint16(pkt[24:], uint16(8+len(data))) // without a checksum
	select {
	case p.wire.Outbound <- append(pkt, data...):
	case <-time.After(10 * time.Second):
		p.t.Fatal("the device's TUN is stuck")
	}
}

// greet sends by one side until the other gets it. It tells how long that took.
func (p *devicePair) greet(what string, send func(uint32), got <-chan uint32) {
	p.t.Helper()
	start := time.Now()
	first := p.greeting
	until(p.t, 20*time.Second, what, func() bool {
		p.greeting += 607
		send(p.greeting)
		for wait := time.After(20 * time.Millisecond); ; {
			select {
			case n := <-got:
				if n > first {
					return true
				}
			case <-wait:
				return false
			}
		}
	})
	p.t.Logf("%s after %v", what, time.Since(start).Round(time.Millisecond))
}

// exchange sends many packets each way and expects all of them in order, late greetings aside.
func (p *devicePair) exchange(count uint32) {
	p.t.Helper()
	limit := time.After(20 * time.Second)
	next := func(what string, got <-chan uint32, want uint32) {
		for {
			select {
			case n := <-got:
				if n == want {
					return
				}
				if n < greetings {
					p.t.Fatalf("%s got packet %d, want %d", what, n, want)
				}
			case <-limit:
				p.t.Fatalf("%s waits for packet %d", what, want)
			}
		}
	}
	const window = 32
	for n := range count + window {
		if n < count {
			p.fromTunnel(n)
			p.fromDevice(n)
		}
		if n >= window {
			next("the device", p.went, n-window)
			next("the tunnel", p.came, n-window)
		}
	}
}

// roam moves an end to another port, and awaits that the other sends there.
func (p *devicePair) roam(who, other *end) {
	p.t.Helper()
	old := who.conn.Port()
	until(p.t, 20*time.Second, "another port", func() bool {
		stop, squatter := make(chan struct{}), make(chan *net.UDPConn)
		go func() { squatter <- squat(old, stop) }()
		if err := who.conn.Rebind(); err != nil {
			p.t.Fatal(err)
		}
		close(stop)
		if c := <-squatter; c != nil {
			p.t.Cleanup(func() { c.Close() })
		}
		return who.conn.Port() != old
	})
	p.greet("a packet from the tunnel", p.fromTunnel, p.went)
	p.greet("a packet from the device", p.fromDevice, p.came)
	until(p.t, 20*time.Second, "the other sends to the new port", func() bool {
		p.greeting += 607
		p.fromTunnel(p.greeting)
		p.fromDevice(p.greeting)
		time.Sleep(10 * time.Millisecond) // polling, with data in both directions
		info, _ := other.conn.Peer(who.id.ID())
		return info.Path.Addr.Port() == who.conn.Port()
	})
}

// squat takes a port in the moment in which it is free. nil: it was not before stop.
func squat(port uint16, stop <-chan struct{}) *net.UDPConn {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(port)}); err == nil {
			return c
		}
	}
}

// TestDeviceOverMagicsock runs the data path against the wireguard module's device, both over magic sockets, with each
// of them as the one that begins.
func TestDeviceOverMagicsock(t *testing.T) {
	for _, weBegin := range []bool{true, false} {
		t.Run(fmt.Sprintf("we begin %v", weBegin), func(t *testing.T) {
			p := newDevicePair(t)
			if weBegin {
				p.greet("the tunnel's first packet", p.fromTunnel, p.went)
				p.greet("the device's first packet", p.fromDevice, p.came)
			} else {
				p.greet("the device's first packet", p.fromDevice, p.came)
				p.greet("the tunnel's first packet", p.fromTunnel, p.went)
			}
			if begun := p.begun.Load() > 0; begun != weBegin {
				t.Fatalf("the tunnel began the handshake: %v", begun)
			}
			p.exchange(1500)
			p.roam(p.theirs, p.ours)
			p.exchange(1000)
			p.roam(p.ours, p.theirs)
			p.exchange(1000)
			p.ours.tun.Renew(p.theirs.id.ID()) // while packets flow
			p.exchange(1000)
			if s := p.ours.tun.Stats()[p.theirs.id.ID()]; !s.Session {
				t.Error("no session")
			}
		})
	}
}
