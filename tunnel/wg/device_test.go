package wg

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// The other implementation: wireguard-go's device at one end of a wire, a Machine at the other.

var (
	ourInner   = netip.MustParseAddr("10.0.0.2")
	theirInner = netip.MustParseAddr("10.0.0.1")
	flooder    = place(netip.MustParseAddrPort("198.51.100.1:1"))
)

// place is an address of ours, as the device sees it.
type place netip.AddrPort

func (place) ClearSrc()             {}
func (place) SrcToString() string   { return "" }
func (p place) DstToString() string { return netip.AddrPort(p).String() }
func (p place) DstToBytes() []byte {
	b, _ := netip.AddrPort(p).MarshalBinary()
	return b
}
func (p place) DstIP() netip.Addr { return netip.AddrPort(p).Addr() }
func (place) SrcIP() netip.Addr   { return netip.Addr{} }

type arrival struct {
	msg  []byte
	from place
}

// memoryBind is the device's socket.
type memoryBind struct {
	in   chan arrival
	send func(msg []byte, to place)

	mu     sync.Mutex
	closed chan struct{} // guarded by mu; nil while not open
}

func (b *memoryBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := make(chan struct{})
	b.closed = closed
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		select {
		case <-closed:
			return 0, net.ErrClosed
		case a := <-b.in:
			sizes[0], eps[0] = copy(bufs[0], a.msg), a.from
			return 1, nil
		}
	}
	return []conn.ReceiveFunc{receive}, port, nil
}

func (b *memoryBind) Send(bufs [][]byte, to conn.Endpoint) error {
	for _, msg := range bufs {
		b.send(msg, to.(place))
	}
	return nil
}

func (b *memoryBind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		close(b.closed)
		b.closed = nil
	}
	return nil
}

func (b *memoryBind) SetMark(uint32) error { return nil }
func (b *memoryBind) BatchSize() int       { return 1 }
func (b *memoryBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	return place(a), err
}

// memoryTUN is the device's interface.
type memoryTUN struct {
	out    chan []byte // to the device
	accept func(pkt []byte)
	events chan tun.Event
	closed chan struct{}
}

func (t *memoryTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-t.closed:
		return 0, os.ErrClosed
	case pkt := <-t.out:
		sizes[0] = copy(bufs[0][offset:], pkt)
		return 1, nil
	}
}

func (t *memoryTUN) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		t.accept(b[offset:])
	}
	return len(bufs), nil
}

func (t *memoryTUN) File() *os.File           { return nil }
func (t *memoryTUN) MTU() (int, error)        { return 1280, nil }
func (t *memoryTUN) Name() (string, error)    { return "memory", nil }
func (t *memoryTUN) Events() <-chan tun.Event { return t.events }
func (t *memoryTUN) BatchSize() int           { return 1 }
func (t *memoryTUN) Close() error {
	close(t.closed)
	close(t.events)
	return nil
}

// interop is a machine and a device on a wire.
type interop struct {
	t    *testing.T
	wire *wire
	us   *agent
	dev  *device.Device
	tun  *memoryTUN
	bind *memoryBind

	mu        sync.Mutex
	here      place           // where we are
	to        place           // where the device sends to
	next      uint64          // id
	theirs    map[uint64]bool // sent by the device's side
	got       map[uint64]int
	deviceOut int // data datagrams of the device that the wire lost, keepalives too
	slack     int // packets of ours that may be lost otherwise
}

// kept are the devices and peers that were made: the finalizers of their queues must not run, for it would be outside
// the bubble.
var kept struct {
	mu  sync.Mutex
	all []any
}

// newInterop builds both. With lower our key is the lower one.
func newInterop(t *testing.T, seed uint64, lower bool) *interop {
	n := &interop{
		t: t, theirs: make(map[uint64]bool), got: make(map[uint64]int),
		here: place(netip.MustParseAddrPort("192.0.2.1:1000")),
		wire: &wire{rng: rand.New(rand.NewPCG(seed, 9)), longest: 30 * time.Millisecond},
	}
	ours, theirs, psk := identity.NewSecret(), identity.NewSecret(), identity.NewSecret()
	po, pt := public(t, ours), public(t, theirs)
	if (bytes.Compare(po[:], pt[:]) < 0) != lower {
		ours, theirs, po, pt = theirs, ours, pt, po
	}
	n.us = newAgent(t, ours, pt, psk, seed)
	n.us.frame = func(id uint64) []byte { return inner(ourInner, theirInner, id) }
	n.us.accept = func(pkt []byte) { n.arrived(innerID(pkt)) }
	n.us.out = func(msg []byte) int {
		return n.wire.carry(msg, func(msg []byte) {
			n.mu.Lock()
			here := n.here
			n.mu.Unlock()
			n.bind.in <- arrival{msg, here}
		})
	}
	n.bind = &memoryBind{in: make(chan arrival, 8192)}
	n.bind.send = func(msg []byte, to place) {
		if to == flooder {
			return
		}
		copies := n.wire.carry(msg, func(msg []byte) { n.us.in <- msg })
		n.mu.Lock()
		defer n.mu.Unlock()
		n.to = to
		if msg[0] == noise.TypeData && copies == 0 {
			n.deviceOut++
		}
	}
	n.tun = &memoryTUN{
		out: make(chan []byte, 256), events: make(chan tun.Event, 1), closed: make(chan struct{}),
		accept: func(pkt []byte) { n.arrived(innerID(pkt)) },
	}
	n.dev = device.NewDevice(n.tun, n.bind, device.NewLogger(device.LogLevelSilent, ""))
	if err := n.dev.IpcSet(fmt.Sprintf(
		"private_key=%s\nlisten_port=1\npublic_key=%s\npreshared_key=%s\nendpoint=%s\nallowed_ip=%s/32\n",
		hex.EncodeToString(theirs[:]), hex.EncodeToString(po[:]), hex.EncodeToString(psk[:]), n.here.DstToString(), ourInner,
	)); err != nil {
		t.Fatal(err)
	}
	if err := n.dev.Up(); err != nil {
		t.Fatal(err)
	}
	kept.mu.Lock()
	kept.all = append(kept.all, n.dev, n.dev.LookupPeer(device.NoisePublicKey(po)))
	kept.mu.Unlock()
	n.us.start()
	return n
}

func public(t *testing.T, private identity.Secret) identity.WGKey {
	t.Helper()
	s, err := noise.NewStatic(private)
	if err != nil {
		t.Fatal(err)
	}
	return s.Public()
}

func (n *interop) close() {
	n.wire.set(func() { n.wire.block = func([]byte) bool { return true } })
	time.Sleep(time.Second)
	n.dev.Close()
	n.us.close()
}

func (n *interop) arrived(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got[id]++
}

// send has each side named send one packet.
func (n *interop) send(we, they bool) (ids []uint64) {
	for i, yes := range []bool{we, they} {
		if !yes {
			continue
		}
		n.mu.Lock()
		n.next++
		id := n.next
		if i == 1 {
			n.theirs[id] = true
		}
		n.mu.Unlock()
		ids = append(ids, id)
		if i == 0 {
			n.us.send <- id
		} else {
			n.tun.out <- inner(theirInner, ourInner, id)
		}
	}
	return ids
}

// flow sends both ways for a while.
func (n *interop) flow(d, every time.Duration, we, they bool) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		n.send(we, they)
		time.Sleep(every)
	}
}

// check fails when packets are missing that the wire did not lose.
func (n *interop) check(when string) {
	n.t.Helper()
	time.Sleep(2 * time.Second)
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.us.mu.Lock()
	defer n.us.mu.Unlock()
	lost, theirLost := 0, 0
	for id, dropped := range n.us.sealed {
		if n.got[id] == 0 && !dropped {
			lost++
		}
	}
	for id := range n.theirs {
		if n.got[id] == 0 {
			theirLost++
		}
	}
	for id, times := range n.got {
		if times > 1 {
			n.t.Errorf("%s: packet %d arrived %d times", when, id, times)
		}
	}
	if lost > n.slack || theirLost > n.deviceOut {
		n.t.Errorf("%s: we lost %d, the device %d, of which the wire %d at most", when, lost, theirLost, n.deviceOut)
	}
}

func (n *interop) counters() (c Counters, actions map[ActionKind]int) {
	n.us.call(func(time.Time) {
		c = n.us.m.Counters()
		actions = make(map[ActionKind]int)
		for k, v := range n.us.actions {
			actions[k] = v
		}
	})
	return c, actions
}

// bubbles runs a test in bubbles, with our key lower and higher, and with us and the device beginning.
func bubbles(t *testing.T, f func(t *testing.T, n *interop, weBegin bool)) {
	seed := newSeed(t)
	for i := range 4 {
		t.Run(fmt.Sprintf("lower=%v/first=%v", i&1 != 0, i&2 != 0), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newInterop(t, seed+uint64(i), i&1 != 0)
				defer n.close()
				f(t, n, i&2 != 0)
			})
		})
	}
}

func TestDevice(t *testing.T) {
	bubbles(t, func(t *testing.T, n *interop, weBegin bool) {
		n.send(weBegin, !weBegin)
		time.Sleep(time.Second)
		n.flow(11*time.Minute, 50*time.Millisecond, true, true)
		n.check("steady flow")
		c, _ := n.counters()
		if c.Established < 6 || c.Established > 7 || weBegin != (c.InitiationsSent >= 6) {
			t.Errorf("%+v", c)
		}
	})
}

func TestDeviceOneWay(t *testing.T) {
	bubbles(t, func(t *testing.T, n *interop, weBegin bool) {
		n.send(weBegin, !weBegin)
		time.Sleep(time.Second)
		n.flow(10*time.Minute, 100*time.Millisecond, weBegin, !weBegin)
		n.check("one way")
		n.flow(10*time.Minute, 100*time.Millisecond, !weBegin, weBegin)
		n.check("the other way")
		n.flow(10*time.Minute, 25*time.Second, weBegin, !weBegin)
		n.check("now and then")
	})
}

func TestDeviceBadWire(t *testing.T) {
	bubbles(t, func(t *testing.T, n *interop, weBegin bool) {
		n.send(weBegin, !weBegin)
		time.Sleep(time.Second)
		n.wire.set(func() { n.wire.loss, n.wire.twice, n.wire.longest = 0.15, 0.1, 80*time.Millisecond })
		n.flow(15*time.Minute, 40*time.Millisecond, true, true)
		n.wire.set(func() { n.wire.loss = 0 })
		n.check("bad wire")
	})
}

// A wire slower than our retry: the device keeps only the session of the last initiation, so its last answer counts.
func TestDeviceSlowWire(t *testing.T) {
	for _, rtt := range []time.Duration{280, 480, 640, 900} {
		synctest.Test(t, func(t *testing.T) {
			n := newInterop(t, 1, true)
			defer n.close()
			n.wire.set(func() { n.wire.longest = 0 })
			out := n.us.out
			n.us.out = func(msg []byte) int {
				own := bytes.Clone(msg)
				time.AfterFunc(rtt*time.Millisecond, func() { out(own) })
				return 1
			}
			n.us.peer.Want()
			time.Sleep(5 * time.Second)
			ids := n.send(true, true)
			time.Sleep(2 * time.Second)
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, id := range ids {
				if n.got[id] != 1 {
					t.Errorf("round trip %v: packet %d did not arrive", rtt*time.Millisecond, id)
				}
			}
		})
	}
}

func TestDeviceReject(t *testing.T) {
	bubbles(t, func(t *testing.T, n *interop, weBegin bool) {
		n.send(weBegin, !weBegin)
		time.Sleep(time.Second)
		n.wire.set(func() { n.wire.block = func(msg []byte) bool { return msg[0] == noise.TypeInitiation } })
		n.flow(178*time.Second, 50*time.Millisecond, true, true)
		n.check("until 180 s")
		time.Sleep(2 * time.Second)
		ids := n.send(true, true)
		time.Sleep(time.Second)
		n.mu.Lock()
		for _, id := range ids {
			if n.got[id] != 0 {
				t.Errorf("packet %d arrived after 180 s", id)
			}
		}
		n.mu.Unlock()
		n.wire.set(func() { n.wire.block = nil })
		time.Sleep(10 * time.Second)
		n.flow(10*time.Minute, 50*time.Millisecond, true, true)
		n.check("afterwards")
	})
}

func TestDeviceSimultaneous(t *testing.T) {
	seed := newSeed(t)
	for i := range runs(100) {
		synctest.Test(t, func(t *testing.T) {
			n := newInterop(t, seed+i, i%2 == 0)
			defer n.close()
			n.wire.longest = []time.Duration{5, 30, 40}[i%3] * time.Millisecond
			n.send(i%4 >= 2, i%4 < 2)
			n.flow(2*time.Second, 5*time.Millisecond, true, true)
			n.flow(5*time.Second, 100*time.Millisecond, true, true)
			n.check(fmt.Sprintf("run %d", i))
			if i >= 8 {
				return
			}
			// The device may be left with a session that nobody confirmed. Its next handshake makes that the previous one and
			// forgets the current, with what is under way.
			n.slack = 2
			n.flow(10*time.Minute, 50*time.Millisecond, true, true)
			n.check(fmt.Sprintf("run %d, later", i))
		})
	}
}

func TestDeviceRoaming(t *testing.T) {
	bubbles(t, func(t *testing.T, n *interop, weBegin bool) {
		n.send(weBegin, !weBegin)
		time.Sleep(time.Second)
		for i := range 10 {
			to := place(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), uint16(2000+i)))
			n.mu.Lock()
			n.here = to
			n.mu.Unlock()
			n.flow(time.Minute, 100*time.Millisecond, true, true)
			n.mu.Lock()
			if n.to != to {
				t.Errorf("the device sends to %v", n.to.DstToString())
			}
			n.mu.Unlock()
		}
		n.check("roaming")
	})
}

// The device is flooded and wants to see cookies.
func TestDeviceCookie(t *testing.T) {
	bubbles(t, func(t *testing.T, n *interop, weBegin bool) {
		stranger, err := noise.NewStatic(identity.NewSecret())
		if err != nil {
			t.Fatal(err)
		}
		r, err := stranger.Remote(n.us.peer.Key)
		if err != nil {
			t.Fatal(err)
		}
		flood := func() {
			var msg [noise.InitiationSize]byte
			i, err := stranger.Initiate(r, 1, [12]byte{}, nil, &msg)
			if err != nil {
				t.Fatal(err)
			}
			i.Wipe()
			for range 4000 {
				n.bind.in <- arrival{bytes.Clone(msg[:]), flooder}
			}
		}
		n.slack = 2 // our handshake may cross the device's: see TestDeviceSimultaneous
		for round := range 3 {
			flood()
			n.us.call(func(now time.Time) { n.us.perform(now, n.us.m.Renew(now, n.us.peer)) })
			n.send(weBegin, !weBegin)
			n.flow(4*time.Minute, 100*time.Millisecond, true, true)
			n.check(fmt.Sprint("flood ", round))
		}
		if c, _ := n.counters(); c.CookiesUsed == 0 || c.BadCookie > 0 {
			t.Errorf("no cookie was used: %+v", c)
		}
	})
}

// Keepalives go when they are owed, and neither side begins a handshake for want of one.
func TestDeviceKeepalive(t *testing.T) {
	bubbles(t, func(t *testing.T, n *interop, weBegin bool) {
		n.send(weBegin, !weBegin)
		time.Sleep(30 * time.Second)
		c, before := n.counters()
		for range 3 {
			n.send(!weBegin, weBegin)
			time.Sleep(25 * time.Second)
		}
		after, actions := n.counters()
		want := 0
		if weBegin {
			want = 3 // the device sent, we owed
		}
		if got := actions[ActKeepalive] - before[ActKeepalive]; got != want || after.InitiationsSent != c.InitiationsSent {
			t.Errorf("%d keepalives, want %d; %+v", got, want, after)
		}
		if n.wire.sent[noise.TypeInitiation] != 1 {
			t.Errorf("%d initiations", n.wire.sent[noise.TypeInitiation])
		}
		n.check("keepalives")
	})
}
