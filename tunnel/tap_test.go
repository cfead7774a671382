package tunnel

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

// fakeTUN is an OS TUN without deadlines, like that of Windows, unless read by the test itself.
type fakeTUN struct {
	in     chan []byte
	closed chan struct{}
	events chan tun.Event

	mu     sync.Mutex
	out    [][]byte
	silent bool // keep nothing
	writes int
}

func newFakeTUN() *fakeTUN {
	return &fakeTUN{in: make(chan []byte, 100), closed: make(chan struct{}), events: make(chan tun.Event)}
}

func (f *fakeTUN) File() *os.File           { return nil }
func (f *fakeTUN) MTU() (int, error)        { return DefaultMTU, nil }
func (f *fakeTUN) Name() (string, error)    { return "fake", nil }
func (f *fakeTUN) Events() <-chan tun.Event { return f.events }
func (f *fakeTUN) BatchSize() int           { return 1 }
func (f *fakeTUN) Close() error             { close(f.closed); close(f.events); return nil }

func (f *fakeTUN) got() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.out)
}

func (f *fakeTUN) Write(bufs [][]byte, offset int) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes += len(bufs)
	if !f.silent {
		for _, b := range bufs {
			f.out = append(f.out, slices.Clone(b[offset:]))
		}
	}
	return len(bufs), nil
}

func (f *fakeTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-f.in:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	case <-f.closed:
		return 0, os.ErrClosed
	}
}

// tapTest is a tap over a fake TUN, with one member.
type tapTest struct {
	*tap
	tun      *fakeTUN
	c        *counters
	me, peer *node // addresses only
	injected [][]byte
	wants    int
}

func newTapTest() *tapTest {
	t := &tapTest{tun: newFakeTUN(), c: new(counters), me: addressesOf(1), peer: addressesOf(2)}
	t.tap = newTap(t.tun, DefaultMTU, t.c)
	t.tap.inject = func(b []byte) { t.injected = append(t.injected, slices.Clone(b)) }
	t.tap.want = func(*peer, int64) { t.wants++ }
	t.tap.self.Store(newSelf(testNetwork(), t.me.ctl, t.me.ip4, t.me.ip6, false))
	next, _, _ := (&table{}).next([]Member{t.peer.member()})
	t.tap.table.Store(next)
	return t
}

func (t *tapTest) entry() *peer { return t.tap.table.Load().byID[t.peer.id.ID()] }

// datagram is a UDP packet with size bytes of payload; its checksum is absent.
func datagram(src, dst netip.Addr, size int) []byte {
	var p []byte
	if src.Is4() {
		p = make([]byte, ipv4HeaderLen+8+size)
		p[0], p[8], p[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		putAddresses(p[12:], src, dst)
		binary.BigEndian.PutUint16(p[10:], checksum(0, p[:ipv4HeaderLen]))
	} else {
		p = make([]byte, ipv6HeaderLen+8+size)
		p[0], p[6], p[7] = 0x60, 17, 64
		binary.BigEndian.PutUint16(p[4:], uint16(8+size))
		putAddresses(p[8:], src, dst)
	}
	udp := p[len(p)-8-size:]
	binary.BigEndian.PutUint16(udp, 1000)
	binary.BigEndian.PutUint16(udp[2:], 2000)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+size))
	return p
}

func TestFromOS(t *testing.T) {
	x := newTapTest()
	n := testNetwork()
	stranger4, stranger6 := netip.MustParseAddr("100.77.3.3"), n.IdentitySubnet().Addr().Next()
	for _, tt := range []struct {
		name    string
		pkt     []byte
		send    bool
		counter reason // reasons: none
		toStack bool
		icmp    string // type/code of the answer
	}{
		{name: "to a member, v4", pkt: datagram(x.me.ip4, x.peer.ip4, 10), send: true, counter: reasons},
		{name: "to a member, v6", pkt: datagram(x.me.ip6, x.peer.ip6, 10), send: true, counter: reasons},
		{name: "to a control address", pkt: datagram(x.me.ip6, x.peer.ctl, 10), counter: outControl},
		{name: "to the own control address", pkt: datagram(x.me.ip6, x.me.ctl, 10), counter: outControl},
		{name: "from the control address", pkt: datagram(x.me.ctl, x.peer.ip6, 10), counter: outControl},
		{name: "control to control", pkt: datagram(x.me.ctl, x.peer.ctl, 10), counter: outControl},
		{name: "from elsewhere", pkt: datagram(stranger4, x.peer.ip4, 10), counter: outSource},
		{name: "link-local", pkt: datagram(netip.MustParseAddr("fe80::1"), x.peer.ip6, 10), counter: outSource},
		{name: "to the service, v4", pkt: datagram(x.me.ip4, n.Service4(), 10), counter: reasons, toStack: true},
		{name: "to the service, v6", pkt: datagram(x.me.ip6, n.Service6(), 10), counter: reasons, toStack: true},
		{name: "to nobody, v4", pkt: datagram(x.me.ip4, stranger4, 10), counter: outNoMember, icmp: "3/1"},
		{name: "to nobody, v6", pkt: datagram(x.me.ip6, stranger6, 10), counter: outNoMember, icmp: "1/3"},
		{name: "multicast", pkt: datagram(x.me.ip6, netip.MustParseAddr("ff02::1"), 10), counter: outNoMember},
		{name: "too big, v4", pkt: datagram(x.me.ip4, x.peer.ip4, 1300), counter: outTooBig, icmp: "3/4"},
		{name: "too big, v6", pkt: datagram(x.me.ip6, x.peer.ip6, 1300), counter: outTooBig, icmp: "2/0"},
		{name: "short", pkt: []byte{0x45, 0}, counter: outMalformed},
		{name: "cut", pkt: datagram(x.me.ip6, x.peer.ip6, 10)[:50], counter: outMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newTapTest()
			x.entry().state.Store(open)
			if got := x.fromOS(tt.pkt); got != tt.send {
				t.Errorf("send = %v", got)
			}
			for r := range reasons {
				if got, want := x.c[r].Load(), map[bool]uint64{true: 1}[r == tt.counter]; got != want {
					t.Errorf("%s = %d, want %d", reasonNames[r], got, want)
				}
			}
			if got := len(x.injected) == 1; got != tt.toStack {
				t.Errorf("to the netstack: %v", got)
			}
			checkICMP(t, x, tt.icmp, tt.pkt)
		})
	}
}

// checkICMP verifies the answer's addresses, checksums and quoted packet.
func checkICMP(t *testing.T, x *tapTest, want string, cause []byte) {
	t.Helper()
	out := x.tun.got()
	if want == "" {
		if len(out) != 0 {
			t.Errorf("answered")
		}
		return
	}
	if len(out) != 1 {
		t.Fatalf("%d answers", len(out))
	}
	p := out[0]
	src, dst, ok := addresses(p)
	if causeSrc, _, _ := addresses(cause); !ok || dst != causeSrc || !x.tap.self.Load().isService(src) {
		t.Errorf("answer from %s to %s", src, dst)
	}
	body, sum := p[ipv4HeaderLen:], uint16(0)
	if p[0]>>4 == 4 {
		if checksum(0, p[:ipv4HeaderLen]) != 0 {
			t.Error("bad header checksum")
		}
		sum = checksum(0, body)
	} else {
		body = p[ipv6HeaderLen:]
		sum = checksum(uint32(len(body))+58, p[8:40], body)
	}
	if sum != 0 {
		t.Error("bad checksum")
	}
	if got := string(rune('0'+body[0])) + "/" + string(rune('0'+body[1])); got != want {
		t.Errorf("answer %s, want %s", got, want)
	}
	if q := body[8:]; !slices.Equal(q, cause[:len(q)]) {
		t.Error("quotes something else")
	}
	if want == "3/4" && binary.BigEndian.Uint16(body[6:]) != DefaultMTU || want == "2/0" && binary.BigEndian.Uint32(body[4:]) != DefaultMTU {
		t.Error("without the MTU")
	}
}

func TestICMPErrorsAreLimited(t *testing.T) {
	x := newTapTest()
	pkt := datagram(x.me.ip4, netip.MustParseAddr("100.77.3.3"), 1)
	for range 1000 {
		x.fromOS(pkt)
	}
	if sent, held := len(x.tun.got()), x.c[icmpLimited].Load(); sent < icmpBurst || sent > 500 || sent+int(held) != 1000 {
		t.Errorf("%d answers, %d held back", sent, held)
	}
	y := newTapTest()
	y.fromOS(x.tun.got()[0][:0]) // malformed: not answered, does not panic
	unreachable := slices.Clone(x.tun.got()[0])
	putAddresses(unreachable[12:], y.me.ip4, netip.MustParseAddr("100.77.3.3"))
	if y.fromOS(unreachable); len(y.tun.got()) != 0 {
		t.Error("an ICMP error is answered with one")
	}
}

func TestWrite(t *testing.T) {
	base := newTapTest()
	n := testNetwork()
	me, peer := base.me, base.peer
	for _, tt := range []struct {
		name      string
		src, dst  netip.Addr
		userspace bool
		counter   reason
		tun       int
		stack     int
	}{
		{"to us", peer.ip4, me.ip4, false, reasons, 1, 0},
		{"to us, userspace", peer.ip6, me.ip6, true, reasons, 0, 1},
		{"control", peer.ctl, me.ctl, false, reasons, 0, 1},
		{"control, not ours", peer.ctl, n.ControlSubnet().Addr().Next(), false, inDestination, 0, 0},
		{"identity to control", peer.ip6, me.ctl, false, inControl, 0, 0},
		{"control to identity", peer.ctl, me.ip6, false, inControl, 0, 0},
		{"to the service", peer.ip6, n.Service6(), false, inDestination, 0, 0},
		{"to somebody else", peer.ip4, netip.MustParseAddr("100.77.9.9"), false, inDestination, 0, 0},
		{"from nobody", netip.MustParseAddr("100.77.9.9"), me.ip4, false, inNoMember, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newTapTest()
			x.tap.self.Store(newSelf(n, me.ctl, me.ip4, me.ip6, tt.userspace))
			good := append(make([]byte, headroom), datagram(peer.ip4, me.ip4, 5)...)
			pkt := append(make([]byte, headroom), datagram(tt.src, tt.dst, 5)...)
			bufs := [][]byte{pkt}
			if tt.counter != reasons {
				bufs = append(bufs, good) // a bad packet takes nothing with it
				tt.tun++
			}
			if n, err := x.Write(bufs, headroom); err != nil || n == 0 {
				t.Fatal(n, err)
			}
			if got := len(x.tun.got()); got != tt.tun {
				t.Errorf("%d to the TUN", got)
			}
			if got := len(x.injected); got != tt.stack {
				t.Errorf("%d to the netstack", got)
			}
			if tt.counter != reasons && x.c[tt.counter].Load() != 1 {
				t.Error("not counted")
			}
		})
	}
}

func TestServiceAnswersGoToTheOS(t *testing.T) {
	x, n := newTapTest(), testNetwork()
	if err := x.fromStack(copyPacket(datagram(n.Service4(), x.me.ip4, 9))); err != nil {
		t.Fatal(err)
	}
	if got := len(x.tun.got()); got != 1 {
		t.Errorf("%d packets", got)
	}
	if err := x.fromStack(copyPacket(datagram(n.Service6(), x.peer.ip6, 9))); err == nil {
		t.Error("a service address talks to a member")
	}
}

// TestPumpedTUN: an interface without read deadlines is read by a goroutine.
func TestPumpedTUN(t *testing.T) {
	x := newTapTest()
	x.entry().state.Store(open)
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.run()
	}()
	x.tun.in <- datagram(x.me.ip4, x.peer.ip4, 7)
	bufs, sizes := [][]byte{make([]byte, 2000)}, make([]int, 1)
	if n, err := x.Read(bufs, sizes, headroom); n != 1 || err != nil || sizes[0] != 35 {
		t.Errorf("n = %d, size %d, %v", n, sizes[0], err)
	}
	_ = x.Close()
	if _, err := x.Read(bufs, sizes, headroom); err != os.ErrClosed {
		t.Errorf("Read after Close: %v", err)
	}
	<-done
}

func TestLotBounds(t *testing.T) {
	x := newTapTest()
	p, now := x.entry(), time.Unix(1000, 0)
	pkt := datagram(x.me.ip4, x.peer.ip4, 1000)
	for range lotPackets + 10 {
		x.lot.keep(p, pkt, now)
	}
	if got := x.c[parkFull].Load(); got != 10 {
		t.Errorf("%d pushed out", got)
	}
	if x.lot.sweep(now.Add(lotAge + 1)) {
		t.Error("something is left")
	}
	if got := x.c[parkExpired].Load(); got != lotPackets {
		t.Errorf("%d expired", got)
	}
	if x.lot.bytes != 0 || len(x.lot.bays) != 0 {
		t.Error("the books are off")
	}
	before := x.c[parkFull].Load()
	for i := range 2 * lotBytes / lotMemberBytes {
		other := &peer{id: [32]byte{byte(i), 5}}
		for range lotPackets {
			x.lot.keep(other, make([]byte, 2000), now)
		}
	}
	if x.lot.bytes > lotBytes || x.c[parkFull].Load() == before {
		t.Errorf("%d bytes wait", x.lot.bytes)
	}
}

func TestPacketPathAllocs(t *testing.T) {
	x := newTapTest()
	x.tun.silent = true
	x.entry().state.Store(open)
	in := [][]byte{
		append(make([]byte, headroom), datagram(x.peer.ip4, x.me.ip4, 1000)...),
		append(make([]byte, headroom), datagram(x.peer.ip6, x.me.ip6, 1000)...),
	}
	bufs := make([][]byte, 2)
	if got := testing.AllocsPerRun(1000, func() {
		copy(bufs, in)
		_, _ = x.Write(bufs, headroom)
	}); got != 0 {
		t.Errorf("Write allocates %v", got)
	}
	x.tap.pumped = false // the test is the interface's only reader
	x.queue.deadline = func(time.Time) error { return nil }
	out := datagram(x.me.ip6, x.peer.ip6, 1000)
	sizes := make([]int, 2)
	reading := [][]byte{make([]byte, 2000), make([]byte, 2000)}
	if got := testing.AllocsPerRun(1000, func() {
		x.tun.in <- out
		if n, err := x.Read(reading, sizes, headroom); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}); got != 0 {
		t.Errorf("Read allocates %v", got)
	}
	if got := testing.AllocsPerRun(1000, func() {
		_ = x.fromStack(copyPacket(out))
		x.tap.turns = 0 // the fake TUN would not be interrupted
		if n, err := x.Read(reading, sizes, headroom); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}); got != 0 && !raceEnabled {
		t.Errorf("the netstack's packets cost %v allocations", got)
	}
}
