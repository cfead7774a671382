package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/relay"
)

// raw is a client of a relay server that sends what it likes.
type raw struct {
	t    *testing.T
	conn net.Conn
	in   *relay.Reader
}

// admitted makes a client that the relay server lets in, with a key of its own.
func admitted(t *testing.T, from *netlab.Host, addr string) *raw {
	t.Helper()
	under, err := from.Dial(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { under.Close() })
	under.SetDeadline(time.Now().Add(settleTime))
	conn := tls.Client(under, &tls.Config{InsecureSkipVerify: true})
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", relay.Path, relay.Protocol); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	state := conn.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(relay.ExporterLabel, nil, relay.ExporterLen)
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, conn: conn, in: relay.NewReader(br, make([]byte, 4096), relay.DefaultMaxFrame)}
	id := identity.New()
	hello := relay.ClientHello{Version: relay.Version, Node: id.ID()}
	hello.Signature = [64]byte(id.Sign(identity.PurposeRelayTLS, identity.NetworkID{}, exporter))
	r.next(relay.TypeServerHello)
	r.send(relay.AppendFrame(nil, relay.TypeClientHello, hello.Append(nil)))
	r.next(relay.TypeWelcome)
	return r
}

func (r *raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// next reads up to the next frame of a type.
func (r *raw) next(want relay.Type) []byte {
	r.t.Helper()
	for {
		if f, ok := r.in.Next(); !ok {
			if _, err := r.in.Fill(); err != nil {
				r.t.Fatalf("no frame of type %#x: %v", want, err)
			}
		} else if f.Type == want {
			return bytes.Clone(f.Payload())
		}
	}
}

// closed waits until the server hangs up.
func (r *raw) closed(what string) {
	r.t.Helper()
	if _, err := io.Copy(io.Discard, r.conn); err != nil && strings.Contains(err.Error(), "timeout") {
		r.t.Errorf("%s: the server does not hang up", what)
	}
}

// halfOpen are clients that go some of the way and then say nothing more, or very little.
func halfOpen(t *testing.T, from *netlab.Host, addr string, count int) (all []net.Conn) {
	t.Helper()
	insecure := &tls.Config{InsecureSkipVerify: true}
	begin := []func(conn net.Conn){
		func(net.Conn) {},
		func(conn net.Conn) { conn.Write([]byte{22, 3, 1, 2, 0, 1}) }, // a TLS record of 512 bytes begins
		func(conn net.Conn) { _ = tls.Client(conn, insecure).Handshake() },
		func(conn net.Conn) { fmt.Fprintf(tls.Client(conn, insecure), "GET %s HTT", relay.Path) },
		func(conn net.Conn) {
			fmt.Fprintf(tls.Client(conn, insecure), "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", relay.Path, relay.Protocol)
		},
	}
	for range count {
		conn, err := from.Dial(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		all = append(all, conn)
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < len(all); i += 8 {
				all[i].SetDeadline(time.Now().Add(settleTime))
				begin[i%len(begin)](all[i])
			}
		})
	}
	wg.Wait()
	return all
}

// TestHostileRelayClients: those who connect to a relay server and mean no good delay and lose nobody else anything.
func TestHostileRelayClients(t *testing.T) {
	const metricsAt = "127.0.0.1:9100"
	const most = relay.DefaultMaxFrame
	w := newWorld(t)
	inet := w.lab.Internet()
	host, m := inet.Public("relay"), inet.Public("mallory")
	s := w.serve(host, "relay", append(public(host, "9000"), "--metrics", metricsAt)...)
	addr := net.JoinHostPort(host.Card().Addr4().String(), "9000")
	a, b := w.on(inet.Site(netlab.UDPBlocked).Host("alice")), w.on(inet.Site(netlab.UDPBlocked).Host("bob"))
	a.up("--relay-server", s.url)
	a.atHome(t, s.url)
	token := a.invite("--uses", "0")
	b.up("--join", "@"+token)
	a.ping(b.ip4, settleTime)
	server := &node{w: w, proc: s.proc}
	memory := server.rss()

	slow := halfOpen(t, m, addr, 400)
	start := time.Now()
	for range 20 {
		if _, err := a.tryPing(b.ip4, 5*time.Second); err != nil {
			t.Fatalf("no ping passes beside half-open clients: %v", err)
		}
	}
	t.Logf("20 pings beside %d half-open clients in %v", len(slow), time.Since(start).Round(time.Millisecond))
	c := w.on(inet.Site(netlab.UDPBlocked).Host("carol"))
	c.up("--join", "@"+token)
	c.ping(a.ip4, settleTime)

	before := scrape(t, host, metricsAt)
	header := func(size uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{byte(relay.TypeSend)}, size)
	}
	tooLong := map[string][]byte{"one byte too long": header(most + 1), "2^32-1": header(1<<32 - 1)}
	for what, frame := range tooLong {
		r := admitted(t, m, addr)
		r.send(frame)
		r.closed(what)
	}
	r := admitted(t, m, addr)
	nobody := identity.New().ID()
	const malformed = 4
	r.send(header(0))
	r.send(header(31)) // too short for a destination
	r.send(make([]byte, 31))
	r.send(relay.AppendDatagram(nil, relay.TypeSend, nobody, nil))
	r.send(relay.AppendFrame(nil, relay.TypeSendTrain, append(nobody[:], 0, 0, 1, 2, 3))) // of size 0
	r.send(relay.AppendFrame(nil, 0x7f, []byte("of no known type")))
	r.send(relay.AppendDatagram(nil, relay.TypeSend, nobody, make([]byte, relay.MaxDatagram)))
	if gone := r.next(relay.TypeGone); !bytes.Equal(gone[:32], nobody[:]) || gone[32] != 0 {
		t.Errorf("answered with %x", gone)
	}
	const many = 3000
	var flood []byte
	for range many {
		flood = relay.AppendDatagram(flood, relay.TypeSend, identity.PeerID(randomBytes(rand.New(rand.NewPCG(rand.Uint64(), 1)), 32)), []byte{1})
	}
	r.send(flood)
	r.send(relay.AppendFrame(nil, relay.TypePing, make([]byte, 8)))
	r.next(relay.TypePong)
	got := scrape(t, host, metricsAt).since(before)
	got.want(t, "relay server", map[string]float64{
		`meshnet_relay_sessions_ended_total{reason="too_long"}`:      float64(len(tooLong)),
		`meshnet_relay_dropped_packets_total{reason="malformed"}`:    malformed,
		`meshnet_relay_events_total{event="skip_unknown_type"}`:      1,
		`meshnet_relay_dropped_packets_total{reason="unknown_node"}`: 1 + many,
	})
	if limited := got[`meshnet_relay_events_total{event="gone_limited"}`]; limited < many/2 {
		t.Errorf("%v of %d unknown destinations were not answered", limited, many)
	}
	a.ping(b.ip4, 5*time.Second)

	for _, conn := range slow { // all are hung up on in the end
		conn.SetReadDeadline(time.Now().Add(2 * relay.HandshakeTime))
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatal("a half-open client stays connected")
		}
	}
	if grown := server.rss() - memory; grown > 64<<20 {
		t.Errorf("the relay server's memory grew by %d MiB", grown>>20)
	} else {
		t.Logf("the relay server's memory: %d MiB before, %d MiB more after", memory>>20, grown>>20)
	}
	a.ping(b.ip4, 5*time.Second)
}

// wireDatagram is a UDP datagram over IPv4 as it was seen.
type wireDatagram struct {
	from, to netip.AddrPort
	data     []byte
}

// udpOf takes a captured frame apart; ok is false for what is no UDP over IPv4 of usual size.
func udpOf(frame []byte) (d wireDatagram, ok bool) {
	const ether, ip, udp = 14, 20, 8
	if len(frame) < ether+ip+udp || len(frame) > ether+1500 || frame[12] != 8 || frame[13] != 0 || frame[ether] != 0x45 || frame[ether+9] != unix.IPPROTO_UDP {
		return d, false
	}
	b := frame[ether:]
	size := int(binary.BigEndian.Uint16(b[ip+4:]))
	if size < udp || ip+size > len(b) {
		return d, false
	}
	d.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), binary.BigEndian.Uint16(b[ip:]))
	d.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(b[ip+2:]))
	d.data = b[ip+udp : ip+size]
	return d, true
}

// forge sends datagrams with the addresses they have, whoever the host is.
func forge(host *netlab.Host, all []wireDatagram) error {
	return host.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, d := range all {
			from, to := d.from.Addr().As4(), d.to.Addr().As4()
			pkt := make([]byte, 28, 28+len(d.data)) // the kernel fills in length, id and checksum
			pkt[0], pkt[8], pkt[9] = 0x45, 64, unix.IPPROTO_UDP
			copy(pkt[12:], from[:])
			copy(pkt[16:], to[:])
			binary.BigEndian.PutUint16(pkt[20:], d.from.Port())
			binary.BigEndian.PutUint16(pkt[22:], d.to.Port())
			binary.BigEndian.PutUint16(pkt[24:], uint16(8+len(d.data)))
			pkt = append(pkt, d.data...)
			if err := unix.Sendto(fd, pkt, 0, &unix.SockaddrInet4{Addr: to}); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestReplay sends again what members sent each other, with their addresses and with others: nothing moves, and nobody
// gets more than was sent in his name.
func TestReplay(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	c, m := w.on(inet.Public("carol")), inet.Public("mallory")
	sa, sb := inet.Site(netlab.Symmetric), inet.Site(netlab.Symmetric)
	a, b := w.on(sa.Host("alice")), w.on(sb.Host("bob"))
	capture := c.host.Capture(c.iface.Name())
	c.up()
	token := c.invite("--uses", "0")
	a.up("--join", "@"+token)
	b.up("--join", "@"+token)
	stop := keepPinging(a, b) // by carol: the only way there is
	defer stop()
	both(t, a, b, "member", settleTime)
	if !waitFor(settleTime, func() bool { return a.counted(t)[`meshnet_socket_events_total{event="calls_received"}`] > 1 }) {
		t.Error("nobody calls")
	}
	capture.Stop()
	stop()
	var all []wireDatagram
	kinds := make(map[byte]int)
	for _, f := range capture.Packets() {
		if d, ok := udpOf(f.Data); ok && (d.from.Port() == meshPort || d.to.Port() == meshPort) {
			all = append(all, d)
			kinds[d.data[0]]++
		}
	}
	t.Logf("%d datagrams, by first byte: %v", len(all), kinds)
	for _, kind := range []byte{1, 2, 4, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC8, 0xC9} {
		if kinds[kind] == 0 {
			t.Logf("none of them begins with %#x", kind)
		}
	}
	nodes := []*node{a, b, c}
	var before [][]string
	for _, n := range nodes {
		before = append(before, n.view())
	}
	counted := c.counted(t)
	toMallory := m.Capture("eth0")
	var sent int
	for range 3 {
		own := make([]wireDatagram, len(all)) // from an address that answers reach
		for i, d := range all {
			own[i] = d
			own[i].from = netip.AddrPortFrom(m.Card().Addr4(), 4711)
			if d.to.Addr() == c.iface.Addr4() {
				sent += 28 + len(d.data)
			}
		}
		if err := forge(m, all); err != nil {
			t.Fatal(err)
		}
		if err := forge(m, own); err != nil {
			t.Fatal(err)
		}
	}
	a.ping(b.ip4, settleTime)
	b.ping(c.ip4, settleTime)
	both(t, a, b, "member", settleTime)
	var received int
	for _, f := range toMallory.Packets() {
		if d, ok := udpOf(f.Data); ok && !f.Outgoing {
			received += 28 + len(d.data)
		}
	}
	drops := c.counted(t).since(counted)
	var text []string
	for name, n := range drops {
		if strings.Contains(name, "drop") && n > 0 {
			text = append(text, fmt.Sprintf("%s %v", name, n))
		}
	}
	t.Logf("%d bytes sent to carol in mallory's name, %d came back; carol dropped:\n%s", sent, received, strings.Join(text, "\n"))
	if received > sent {
		t.Errorf("%d bytes sent, %d came back", sent, received)
	}
	for i, n := range nodes {
		if after := n.view(); fmt.Sprint(after) != fmt.Sprint(before[i]) {
			t.Errorf("%s: before %v, after %v", n.name, before[i], after)
		}
	}
}

// view is how a node sees itself and others, as far as it stays the same while nothing happens.
func (n *node) view() []string {
	s := n.status()
	view := []string{fmt.Sprint(s.Self.Endpoints), fmt.Sprint(s.Self.Homes)}
	for _, p := range s.Peers {
		view = append(view, fmt.Sprint(text(p.Name), p.State, p.Path.Kind, text(p.Path.Addr), text(p.Path.Via), p.Endpoints))
	}
	return view
}

// TestForeignSTUN: only answers to own questions count, and questions are not answered.
func TestForeignSTUN(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	host, m := inet.Public("relay"), inet.Public("mallory")
	s := w.serve(host, "relay", public(host, "9000")...)
	a := w.on(inet.Public("alice"))
	a.up("--relay-server", s.url, "--userspace")
	a.atHome(t, s.url)
	a.netcheck(t) // no question is under way after it
	before, view := a.counted(t), a.view()
	a.netcheck(t)
	asked := a.counted(t).since(before)
	// One for its address; one for the mapping by the server's other port; one for the second socket's address, and one
	// for the answer from elsewhere. What was slow was asked again.
	sent, ok, late := asked["meshnet_stun_queries_total"], asked[`meshnet_stun_results_total{result="ok"}`], asked[`meshnet_stun_results_total{result="late"}`]
	if ok != 4 || sent < ok || sent < ok+late {
		t.Errorf("%v questions, %v answers, %v too late", sent, ok, late)
	}
	before = a.counted(t)
	pc, err := m.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	victim := []byte{0, 0x20, 0, 8, 0, 1, 0x12, 0x34, 1, 2, 3, 4} // an XOR-MAPPED-ADDRESS
	message := func(kind uint16, length int, attributes []byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(length))
		b = append(b, 0x21, 0x12, 0xA4, 0x42)
		b = append(b, randomBytes(rand.New(rand.NewPCG(rand.Uint64(), 2)), 12)...)
		return append(b, attributes...)
	}
	messages := [][]byte{
		message(0x0001, 0, nil),                                     // a question
		message(0x0101, len(victim), victim),                        // an answer to none
		message(0x0101, 0xFFFC, victim),                             // longer than it is
		message(0x0101, 3, victim[:3]),                              // of no multiple of four
		message(0x0101, 8, []byte{0, 0x20, 0xFF, 0xFF, 0, 1, 2, 3}), // an attribute that goes beyond it
		message(0x0111, 4, []byte{0, 9, 0, 0}),                      // an error
		message(0x0101, 0, nil)[:19],                                // cut short
		message(0x0101, 1400, make([]byte, 1400)),
	}
	const times = 25
	for range times {
		for _, msg := range messages {
			if _, err := pc.WriteTo(msg, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.iface.Addr4(), meshPort))); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got samples
	waitFor(5*time.Second, func() bool {
		got = a.counted(t).since(before)
		return got[`meshnet_stun_results_total{result="unknown"}`]+got[`meshnet_stun_results_total{result="malformed"}`]+
			got[`meshnet_socket_dropped_packets_total{reason="stun"}`]+got[`meshnet_socket_dropped_packets_total{reason="foreign"}`] >= times*float64(len(messages))
	})
	t.Logf("unknown %v, malformed %v, spoofed %v, late %v; at the socket: stun %v, foreign %v",
		got[`meshnet_stun_results_total{result="unknown"}`], got[`meshnet_stun_results_total{result="malformed"}`],
		got[`meshnet_stun_results_total{result="spoofed"}`], got[`meshnet_stun_results_total{result="late"}`],
		got[`meshnet_socket_dropped_packets_total{reason="stun"}`], got[`meshnet_socket_dropped_packets_total{reason="foreign"}`])
	got.want(t, "alice", map[string]float64{
		"meshnet_stun_queries_total": 0, `meshnet_stun_results_total{result="ok"}`: 0,
	})
	if all := got[`meshnet_stun_results_total{result="unknown"}`] + got[`meshnet_stun_results_total{result="malformed"}`] +
		got[`meshnet_socket_dropped_packets_total{reason="stun"}`] + got[`meshnet_socket_dropped_packets_total{reason="foreign"}`]; all != times*float64(len(messages)) {
		t.Errorf("%v of %d messages are accounted for", all, times*len(messages))
	}
	pc.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	if n, _, err := pc.ReadFrom(make([]byte, 1500)); err == nil {
		t.Errorf("answered with %d bytes", n)
	}
	if after := a.view(); fmt.Sprint(after) != fmt.Sprint(view) {
		t.Errorf("before %v, after %v", view, after)
	}
}
