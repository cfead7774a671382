package portmap

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fakeNet is a link with some routers, without any socket.
type fakeNet struct {
	mu      sync.Mutex
	routers map[netip.Addr]*fakeRouter
	group   *fakeConn // hears announcements
	open    int       // sockets
}

func newFakeNet(routers ...*fakeRouter) *fakeNet {
	n := &fakeNet{routers: make(map[netip.Addr]*fakeRouter)}
	for _, r := range routers {
		r.net, r.booted = n, time.Now()
		r.maps = make(map[uint16]fakeMapping)
		n.routers[r.addr] = r
	}
	return n
}

func (n *fakeNet) listen(_, addr string) (net.PacketConn, error) {
	a := netip.MustParseAddrPort(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open++
	c := &fakeConn{net: n, self: netip.AddrPortFrom(a.Addr(), uint16(40000+n.open)), in: make(chan fakePacket, 64), closed: make(chan struct{})}
	if a.Addr().IsMulticast() {
		n.group = c
	}
	return c, nil
}

func (n *fakeNet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.routers[netip.MustParseAddrPort(addr).Addr()]
	if r == nil || r.upnp == nil {
		return nil, errors.New("refused")
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		r.serve(theirs)
	}()
	return ours, nil
}

// announce sends a packet to the group from an address.
func (n *fakeNet) announce(from netip.AddrPort, pkt []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.group.in <- fakePacket{pkt, from}
}

type fakePacket struct {
	data []byte
	from netip.AddrPort
}

// fakeConn is one socket. Only its reader sets deadlines.
type fakeConn struct {
	net    *fakeNet
	self   netip.AddrPort
	in     chan fakePacket
	closed chan struct{}
	once   sync.Once
	end    time.Time
}

func (c *fakeConn) ReadFrom(b []byte) (int, net.Addr, error) {
	var late <-chan time.Time
	if !c.end.IsZero() {
		t := time.NewTimer(time.Until(c.end))
		defer t.Stop()
		late = t.C
	}
	select {
	case <-c.closed:
		return 0, nil, net.ErrClosed
	case p := <-c.in:
		return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
	case <-late:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (c *fakeConn) WriteTo(b []byte, to net.Addr) (int, error) {
	dst := addrPort(to)
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for addr, r := range c.net.routers {
		if addr != dst.Addr() && dst.Addr() != ssdpGroup {
			continue
		}
		r.packets++
		for _, p := range r.answer(b, dst.Port(), c.self) {
			time.AfterFunc(5*time.Millisecond, func() {
				select {
				case c.in <- p:
				default:
				}
			})
		}
	}
	return len(b), nil
}

func (c *fakeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *fakeConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.self) }

func (c *fakeConn) SetReadDeadline(t time.Time) error {
	c.end = t
	return nil
}
func (c *fakeConn) SetDeadline(time.Time) error      { panic("not used") }
func (c *fakeConn) SetWriteDeadline(time.Time) error { panic("not used") }

// fakeRouter speaks what it is told to. Guarded by its net's mu.
type fakeRouter struct {
	addr     netip.Addr
	external netip.Addr
	pcp, pmp bool
	upnp     *fakeUPnP
	refuse   byte   // a result code for every mapping
	grant    uint32 // seconds; 0: what was asked for
	dead     bool
	fiction  func(pkt []byte, from netip.AddrPort) []fakePacket // answers sent before the right one

	net     *fakeNet
	booted  time.Time
	maps    map[uint16]fakeMapping // by outside port
	packets int
	log     []string
}

type fakeMapping struct {
	to     netip.AddrPort
	nonce  [12]byte
	by     Protocol
	expiry time.Time
}

type fakeUPnP struct {
	services  []string // types
	permanent bool     // no leases
	taken     []uint16 // outside ports of others
	located   string   // where the description is said to be
	describe  string   // the description, instead of one of services
	external  string   // instead of the router's
}

func (r *fakeRouter) restart() {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	r.booted = time.Now()
	clear(r.maps)
}

func (r *fakeRouter) epoch() uint32 { return uint32(time.Since(r.booted) / time.Second) }

// mapped is the outside port of the only mapping, 0 without any.
func (r *fakeRouter) mapped() (port uint16, m fakeMapping) {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	for p, m := range r.maps {
		if time.Now().Before(m.expiry) {
			return p, m
		}
	}
	return 0, fakeMapping{}
}

func (r *fakeRouter) requests(prefix string) (n int) {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	for _, l := range r.log {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

func (r *fakeRouter) answer(pkt []byte, port uint16, from netip.AddrPort) []fakePacket {
	if r.dead {
		return nil
	}
	var out []fakePacket
	if r.fiction != nil {
		out = r.fiction(pkt, from)
	}
	var data []byte
	switch {
	case port == ssdpPort:
		data = r.ssdp(pkt)
	case port != serverPort || len(pkt) < 2:
	case pkt[0] == pcpVersion && r.pcp:
		data = r.answerPCP(pkt, from)
	case pkt[0] == pcpVersion && r.pmp:
		data = binary.BigEndian.AppendUint32([]byte{0, pkt[1] | 0x80, 0, pmpUnsupportedVersion}, r.epoch())
	case pkt[0] == pmpVersion && r.pmp:
		data = r.answerPMP(pkt, from)
	}
	if data != nil {
		out = append(out, fakePacket{data, netip.AddrPortFrom(r.addr, port)})
	}
	return out
}

func (r *fakeRouter) answerPCP(pkt []byte, from netip.AddrPort) []byte {
	lifetime := binary.BigEndian.Uint32(pkt[4:])
	out := []byte{pcpVersion, pkt[1] | 0x80, 0, 0}
	tail := func(result byte, life uint32) []byte {
		out[3] = result
		out = binary.BigEndian.AppendUint32(out, life)
		out = binary.BigEndian.AppendUint32(out, r.epoch())
		return append(out, make([]byte, 12)...)
	}
	self, _ := netip.AddrFromSlice(pkt[8:24])
	switch {
	case self.Unmap() != from.Addr():
		return tail(12, 30) // ADDRESS_MISMATCH
	case pkt[1] == pcpAnnounce:
		r.log = append(r.log, "pcp announce")
		return tail(pcpSuccess, 0)
	}
	r.log = append(r.log, fmt.Sprintf("pcp map %d", lifetime))
	body := append([]byte(nil), pkt[24:60]...)
	if r.refuse != 0 {
		return append(tail(r.refuse, 30), body...)
	}
	port := binary.BigEndian.Uint16(body[16:])
	want := binary.BigEndian.Uint16(body[18:])
	life, outside := r.set(netip.AddrPortFrom(from.Addr(), port), want, [12]byte(body), PCP, lifetime)
	binary.BigEndian.PutUint16(body[18:], outside)
	ip := r.external.As16()
	copy(body[20:], ip[:])
	return append(tail(pcpSuccess, life), body...)
}

func (r *fakeRouter) answerPMP(pkt []byte, from netip.AddrPort) []byte {
	out := binary.BigEndian.AppendUint32([]byte{0, pkt[1] | 0x80, 0, 0}, r.epoch())
	if pkt[1] == pmpAddress {
		r.log = append(r.log, "pmp address")
		ip := r.external.As4()
		return append(out, ip[:]...)
	}
	lifetime := binary.BigEndian.Uint32(pkt[8:])
	r.log = append(r.log, fmt.Sprintf("pmp map %d", lifetime))
	if r.refuse != 0 {
		out[3] = r.refuse
		return out
	}
	port, want := binary.BigEndian.Uint16(pkt[4:]), binary.BigEndian.Uint16(pkt[6:])
	life, outside := r.set(netip.AddrPortFrom(from.Addr(), port), want, [12]byte{}, NATPMP, lifetime)
	out = binary.BigEndian.AppendUint16(out, port)
	out = binary.BigEndian.AppendUint16(out, outside)
	return binary.BigEndian.AppendUint32(out, life)
}

// set makes, renews or ends a mapping.
func (r *fakeRouter) set(to netip.AddrPort, want uint16, nonce [12]byte, by Protocol, life uint32) (uint32, uint16) {
	for outside, m := range r.maps {
		if m.to == to {
			want = outside
		}
	}
	if life == 0 {
		delete(r.maps, want)
		return 0, 0
	}
	if r.grant != 0 {
		life = r.grant
	}
	r.maps[want] = fakeMapping{to, nonce, by, time.Now().Add(time.Duration(life) * time.Second)}
	return life, want
}

func (r *fakeRouter) ssdp(pkt []byte) []byte {
	if r.upnp == nil || !strings.Contains(string(pkt), "InternetGatewayDevice:1") {
		return nil
	}
	at := r.upnp.located
	if at == "" {
		at = "http://" + r.addr.String() + ":5000/root.xml"
	}
	return []byte("HTTP/1.1 200 OK\r\nST: urn:x\r\nEXT:\r\nLOCATION: " + at + "\r\n\r\n")
}

// serve answers one HTTP request.
func (r *fakeRouter) serve(c net.Conn) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.net.mu.Lock()
	dead := r.dead
	status, text := 0, ""
	if !dead {
		status, text = r.http(req, string(body))
	}
	r.net.mu.Unlock()
	if dead {
		_, _ = io.Copy(io.Discard, c) // until the other side gives up
		return
	}
	fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(text), text)
}

var argument = regexp.MustCompile(`<(New\w+)>([^<]*)</`)

func (r *fakeRouter) http(req *http.Request, body string) (int, string) {
	if req.Method == http.MethodGet {
		r.log = append(r.log, "upnp describe")
		return 200, r.description()
	}
	action := strings.Trim(req.Header.Get("SOAPACTION"), `"`)
	service, action, _ := strings.Cut(action, "#")
	args := make(map[string]string)
	for _, m := range argument.FindAllStringSubmatch(body, -1) {
		args[m[1]] = m[2]
	}
	num := func(name string) uint16 {
		n, _ := strconv.ParseUint(args[name], 10, 16)
		return uint16(n)
	}
	r.log = append(r.log, "upnp "+action+" "+args["NewExternalPort"]+" "+args["NewLeaseDuration"])
	switch action {
	case "GetExternalIPAddress":
		ip := r.external.String()
		if r.upnp.external != "" {
			ip = r.upnp.external
		}
		return 200, envelope(service, action, "<NewExternalIPAddress>"+ip+"</NewExternalIPAddress>")
	case "AddPortMapping":
		outside := num("NewExternalPort")
		for _, taken := range r.upnp.taken {
			if taken == outside {
				return 500, fault(upnpConflict)
			}
		}
		life := uint32(num("NewLeaseDuration"))
		switch {
		case r.refuse != 0:
			return 500, fault(606)
		case r.upnp.permanent && life != 0:
			return 500, fault(upnpOnlyPermanent)
		case r.upnp.permanent:
			life = 1 << 30
		}
		client, err := netip.ParseAddr(args["NewInternalClient"])
		if err != nil || args["NewProtocol"] != "UDP" || args["NewEnabled"] != "1" {
			return 500, fault(402)
		}
		r.set(netip.AddrPortFrom(client, num("NewInternalPort")), outside, [12]byte{}, UPnP, life)
		return 200, envelope(service, action, "")
	case "DeletePortMapping":
		delete(r.maps, num("NewExternalPort"))
		return 200, envelope(service, action, "")
	}
	return 500, fault(401)
}

func (r *fakeRouter) description() string {
	if r.upnp.describe != "" {
		return r.upnp.describe
	}
	var list strings.Builder
	for i, s := range r.upnp.services {
		fmt.Fprintf(&list, "<service><serviceType>%s</serviceType><controlURL>/ctl/%d</controlURL></service>", s, i)
	}
	return xml.Header + `<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceList><device><serviceList>` +
		list.String() + `</serviceList></device></deviceList></device></root>`
}

func envelope(service, action, args string) string {
	return `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:` + action +
		`Response xmlns:u="` + service + `">` + args + `</u:` + action + `Response></s:Body></s:Envelope>`
}

func fault(code int) string {
	return `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>` +
		`<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0">` +
		`<errorCode>` + strconv.Itoa(code) + `</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`
}
