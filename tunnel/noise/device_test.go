package noise

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tai64n"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/meshnet/meshnet/identity"
)

// The other implementation: wireguard-go's device at one end of a line in memory, this package at the other.

var (
	ourIP   = netip.MustParseAddr("10.0.0.2")
	theirIP = netip.MustParseAddr("10.0.0.1")
)

// line is the device's bind. It has one endpoint, which is us.
type line struct {
	in, out chan []byte   // to and from the device
	closed  chan struct{} // nil while not open
}

func newLine() *line {
	return &line{in: make(chan []byte, 8192), out: make(chan []byte, 16384)}
}

func (l *line) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	closed := make(chan struct{})
	l.closed = closed
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		select {
		case <-closed:
			return 0, net.ErrClosed
		case msg := <-l.in:
			sizes[0], eps[0] = copy(bufs[0], msg), us{}
		}
		n := 1
		for ; n < len(bufs) && len(l.in) > 0; n++ {
			sizes[n], eps[n] = copy(bufs[n], <-l.in), us{}
		}
		return n, nil
	}
	return []conn.ReceiveFunc{receive}, port, nil
}

func (l *line) Send(bufs [][]byte, _ conn.Endpoint) error {
	for _, b := range bufs {
		select {
		case l.out <- bytes.Clone(b):
		default: // lost, as packets are
		}
	}
	return nil
}

func (l *line) Close() error {
	if l.closed != nil {
		close(l.closed)
		l.closed = nil
	}
	return nil
}

func (l *line) SetMark(uint32) error                        { return nil }
func (l *line) ParseEndpoint(string) (conn.Endpoint, error) { return us{}, nil }
func (l *line) BatchSize() int                              { return 128 }

// us is our endpoint.
type us struct{}

func (us) ClearSrc()           {}
func (us) SrcToString() string { return "" }
func (us) DstToString() string { return "192.0.2.1:51820" }
func (us) DstToBytes() []byte  { return []byte{192, 0, 2, 1, 0x6c, 0xca} }
func (us) DstIP() netip.Addr   { return netip.MustParseAddr("192.0.2.1") }
func (us) SrcIP() netip.Addr   { return netip.Addr{} }

// other is the device with its line and TUN, and we as it knows us.
type other struct {
	t      *testing.T
	line   *line
	tun    *tuntest.ChannelTUN
	dev    *device.Device
	static *Static // ours
	remote *Remote // the device, to us
	psk    identity.Secret
}

func newOther(t *testing.T, psk identity.Secret) *other {
	t.Helper()
	theirs := identity.NewSecret()
	o := &other{t: t, line: newLine(), tun: tuntest.NewChannelTUN(), static: static(t, identity.NewSecret()), psk: psk}
	o.remote = remote(t, o.static, static(t, theirs).Public())
	o.dev = device.NewDevice(o.tun.TUN(), o.line, device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(o.dev.Close)
	config := fmt.Sprintf("private_key=%s\nreplace_peers=true\npublic_key=%s\nendpoint=us\nallowed_ip=%s/32\n",
		hex.EncodeToString(theirs[:]), o.static.Public().Hex(), ourIP)
	if !psk.IsZero() {
		config += "preshared_key=" + hex.EncodeToString(psk[:]) + "\n"
	}
	if err := o.dev.IpcSet(config); err != nil {
		t.Fatal(err)
	}
	if err := o.dev.Up(); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *other) known(key identity.WGKey) *Remote {
	if key != o.remote.Key() {
		return nil
	}
	return o.remote
}

// next is the device's next message of that type.
func (o *other) next(kind byte) []byte {
	o.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case msg := <-o.line.out:
			if TypeOf(msg) == kind {
				return msg
			}
		case <-deadline:
			o.t.Fatalf("no message of type %d", kind)
		}
	}
}

// toDevice sends it a packet with our keys, which has to come out of its TUN.
func (o *other) toDevice(keys Keys, receiver uint32, counter uint64) {
	o.t.Helper()
	packet := tuntest.Ping(theirIP, ourIP)
	o.line.in <- seal(keys, receiver, counter, packet)
	select {
	case got := <-o.tun.Inbound:
		same(o.t, "packet to the device", got, packet)
	case <-time.After(20 * time.Second):
		o.t.Fatal("the device did not take our packet")
	}
}

// fromDevice has the next packet that the device sends opened with our keys.
func (o *other) fromDevice(keys Keys, index uint32, packet []byte) {
	o.t.Helper()
	for {
		msg := o.next(TypeData)
		if to, _ := ReceiverIndex(msg); to != index {
			o.t.Fatalf("data for index %d, want %d", to, index)
		}
		plain, err := unseal(keys, msg)
		if err != nil {
			o.t.Fatal(err)
		}
		if len(plain) == 0 { // a keepalive
			continue
		}
		same(o.t, "packet from the device", plain[:len(packet)], packet)
		return
	}
}

func eachPSK(t *testing.T, f func(t *testing.T, psk identity.Secret)) {
	for name, psk := range map[string]identity.Secret{"no psk": {}, "psk": identity.NewSecret()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, psk) })
		})
	}
}

func TestDeviceResponds(t *testing.T) {
	eachPSK(t, func(t *testing.T, psk identity.Secret) {
		o := newOther(t, psk)
		var msg [InitiationSize]byte
		i, err := o.static.Initiate(o.remote, 7, tai64n.Now(), nil, &msg)
		if err != nil {
			t.Fatal(err)
		}
		o.line.in <- msg[:]
		response := o.next(TypeResponse)
		keys, at, err := i.Finish(response, []identity.Secret{identity.NewSecret(), psk})
		if err != nil || at != 1 {
			t.Fatalf("psk %d, %v", at, err)
		}
		index, _ := SenderIndex(response)
		o.toDevice(keys, index, 0)
		packet := tuntest.Ping(ourIP, theirIP)
		o.tun.Outbound <- packet
		o.fromDevice(keys, 7, packet)
		o.toDevice(keys, index, 1)
	})
}

func TestDeviceInitiates(t *testing.T) {
	eachPSK(t, func(t *testing.T, psk identity.Secret) {
		o := newOther(t, psk)
		packet := tuntest.Ping(ourIP, theirIP)
		o.tun.Outbound <- packet
		in, err := o.static.Open(o.next(TypeInitiation), o.known)
		if err != nil {
			t.Fatal(err)
		}
		o.answer(in, packet)
	})
}

// answer responds to the device, which then sends packet.
func (o *other) answer(in *Received, packet []byte) {
	o.t.Helper()
	if age := time.Since(timeOf(in.Timestamp)); age.Abs() > time.Minute {
		o.t.Errorf("the timestamp is %v away from now", age)
	}
	var msg [ResponseSize]byte
	index := in.Sender
	keys, err := in.Respond(9, o.psk, nil, &msg)
	if err != nil {
		o.t.Fatal(err)
	}
	o.line.in <- msg[:]
	o.fromDevice(keys, 9, packet)
	o.toDevice(keys, index, 0)
}

// timeOf reads TAI64N, whose seconds wireguard-go counts without leap seconds.
func timeOf(stamp [12]byte) time.Time {
	seconds := binary.BigEndian.Uint64(stamp[:8]) - 0x400000000000000a
	return time.Unix(int64(seconds), int64(binary.BigEndian.Uint32(stamp[8:])))
}

// The device is given a cookie in answer to its initiation, and makes the next one with it.
func TestDeviceTakesCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOther(t, identity.NewSecret())
		checker, source := NewChecker(o.static), []byte("device")
		packet := tuntest.Ping(ourIP, theirIP)
		o.tun.Outbound <- packet
		first := o.next(TypeInitiation)
		if checker.CheckMAC2(time.Now(), first, source) {
			t.Fatal("an initiation without a cookie passed")
		}
		var reply [CookieReplySize]byte
		if err := checker.Reply(time.Now(), first, source, &reply); err != nil {
			t.Fatal(err)
		}
		o.line.in <- reply[:]
		second := o.next(TypeInitiation)
		if !checker.CheckMAC2(time.Now(), second, source) {
			t.Fatal("the device did not use the cookie")
		}
		in, err := o.static.Open(second, o.known)
		if err != nil {
			t.Fatal(err)
		}
		o.answer(in, packet)
	})
}

// Under load the device answers with a cookie, and lets pass who uses it.
func TestDeviceGivesCookie(t *testing.T) {
	o := newOther(t, identity.NewSecret())
	stranger := static(t, identity.NewSecret())
	var flood [InitiationSize]byte
	if _, err := stranger.Initiate(remote(t, stranger, o.remote.Key()), 1, tai64n.Now(), nil, &flood); err != nil {
		t.Fatal(err)
	}
	// The load may be over before the last answer, so what counts is a round that has a cookie reply on both sides
	// of the response.
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		for range 2048 {
			select {
			case o.line.in <- flood[:]:
			default:
			}
		}
		kind, reply, sent := o.ask(nil)
		if kind != TypeCookieReply {
			continue
		}
		cookie, err := o.remote.OpenCookie(reply, sent.MAC1())
		if err != nil {
			t.Fatal(err)
		}
		kind, response, sent := o.ask(&cookie)
		if kind != TypeResponse {
			continue
		}
		if kind, _, _ := o.ask(nil); kind != TypeCookieReply {
			continue
		}
		keys, _, err := sent.Finish(response, []identity.Secret{o.psk})
		if err != nil {
			t.Fatal(err)
		}
		index, _ := SenderIndex(response)
		o.toDevice(keys, index, 0)
		return
	}
	t.Fatal("the device could not be brought under load")
}

// ask sends an initiation and waits a moment for its answer, which may get lost in the flood.
func (o *other) ask(cookie *Cookie) (kind byte, answer []byte, sent *Initiation) {
	o.t.Helper()
	index := uint32(time.Now().UnixNano()) | 2 // never the flood's
	var msg [InitiationSize]byte
	sent, err := o.static.Initiate(o.remote, index, tai64n.Now(), cookie, &msg)
	if err != nil {
		o.t.Fatal(err)
	}
	o.line.in <- msg[:]
	timeout := time.After(300 * time.Millisecond)
	for {
		select {
		case answer := <-o.line.out:
			if to, ok := ReceiverIndex(answer); ok && to == index {
				return TypeOf(answer), answer, sent
			}
		case <-timeout:
			return 0, nil, sent
		}
	}
}

// The macs and cookies of both implementations are the same.
func TestMACsLikeDevice(t *testing.T) {
	c := newCouple(t)
	source := []byte{192, 0, 2, 1, 0x6c, 0xca}
	var theirs device.CookieChecker
	theirs.Init(device.NoisePublicKey(c.b.Public()))
	i := c.initiate(t)
	if !theirs.CheckMAC1(c.first[:]) {
		t.Error("our mac1 is refused")
	}
	made, err := theirs.CreateReply(c.first[:], i.Index(), source)
	if err != nil {
		t.Fatal(err)
	}
	var reply bytes.Buffer
	if err := binary.Write(&reply, binary.LittleEndian, made); err != nil {
		t.Fatal(err)
	}
	cookie, err := c.atA.OpenCookie(reply.Bytes(), i.MAC1())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.a.Initiate(c.atA, 5, c.stamp, &cookie, &c.first); err != nil {
		t.Fatal(err)
	}
	if !theirs.CheckMAC2(c.first[:], source) {
		t.Error("our mac2 is refused")
	}

	var sender device.CookieGenerator
	sender.Init(device.NoisePublicKey(c.b.Public()))
	for _, msg := range [][]byte{c.first[:], response(7)} {
		sender.AddMacs(msg)
		if !c.b.CheckMAC1(msg) {
			t.Error("their mac1 is refused")
		}
		checker, now := NewChecker(c.b), time.Now()
		var ours [CookieReplySize]byte
		if err := checker.Reply(now, msg, source, &ours); err != nil {
			t.Fatal(err)
		}
		var parsed device.MessageCookieReply
		if err := binary.Read(bytes.NewReader(ours[:]), binary.LittleEndian, &parsed); err != nil {
			t.Fatal(err)
		}
		if !sender.ConsumeReply(&parsed) {
			t.Fatal("our cookie reply is refused")
		}
		sender.AddMacs(msg)
		if !checker.CheckMAC2(now, msg, source) {
			t.Error("their mac2 is refused")
		}
	}
}

// response is one with nothing in it, from that index.
func response(sender uint32) []byte {
	msg := make([]byte, ResponseSize)
	putHead(msg, TypeResponse, sender)
	return msg
}
