package mdns

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// wire is a LAN in memory. What is sent is there at once, also at the sender, as with sockets.
type wire struct {
	mu    sync.Mutex
	ports []*port
	sent  [][]byte // all that was sent to the group
	cut   bool
}

// port is a host's interface on a wire.
type port struct {
	host  *host
	iface Interface
}

// attach plugs an interface of a host in.
func (w *wire) attach(p *port) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports = append(w.ports, p)
}

func (w *wire) detach(h *host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports = slices.DeleteFunc(w.ports, func(p *port) bool { return p.host == h })
}

// inject has everybody on the wire receive a datagram that was sent to the group.
func (w *wire) inject(from netip.AddrPort, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, data)
	for _, p := range w.ports {
		p.host.take(datagram{iface: p.iface.Index, from: from, group: true, data: data})
	}
}

func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sent)
}

// last is the newest message on the wire that is a response, if any.
func (w *wire) last(t *testing.T) *dns.Msg {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, data := range slices.Backward(w.sent) {
		m := new(dns.Msg)
		if err := m.Unpack(data); err != nil {
			t.Fatal(err)
		}
		if m.Response {
			return m
		}
	}
	return nil
}

// host runs a Service on wires. Its link.
type host struct {
	t       *testing.T
	svc     *Service
	stop    context.CancelFunc
	done    chan struct{}
	wires   map[int]*wire // by interface
	deliver func(datagram)

	mu      sync.Mutex
	ifaces  []Interface
	joined  []Interface
	udp     uint16
	news    []Announcement
	unicast []packet // what was sent to one alone
}

var testTag = [8]byte{1, 2, 3, 4, 5, 6, 7, 8}

// newHost makes a host that announces testTag and looks for it, on one interface of the wire. edit changes that.
func newHost(t *testing.T, w *wire, index int, addrs []string, edit func(*Config)) *host {
	t.Helper()
	h := &host{t: t, wires: make(map[int]*wire), udp: 41820, done: make(chan struct{})}
	cfg := Config{
		Tag:        func(time.Time) [8]byte { return testTag },
		Port:       h.port,
		Known:      func(tag [8]byte) bool { return tag == testTag },
		Found:      h.found,
		Interfaces: h.interfaces,
	}
	if edit != nil {
		edit(&cfg)
	}
	svc, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.svc = svc
	svc.open = func(deliver func(datagram)) link {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.deliver = deliver
		return h
	}
	h.plug(w, index, addrs...)
	return h
}

// start runs it until the test or stop ends it.
func (h *host) start() *host {
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = func() {
		cancel()
		<-h.done
	}
	go func() {
		defer close(h.done)
		h.svc.Run(ctx)
	}()
	h.t.Cleanup(h.stop)
	return h
}

func (h *host) plug(w *wire, index int, addrs ...string) {
	iface := Interface{Name: "eth" + string(rune('0'+index)), Index: index}
	for _, a := range addrs {
		iface.Addrs = append(iface.Addrs, netip.MustParsePrefix(a))
	}
	h.mu.Lock()
	h.ifaces = append(slices.DeleteFunc(h.ifaces, func(i Interface) bool { return i.Index == index }), iface)
	h.wires[index] = w
	h.mu.Unlock()
	w.detach(h)
	w.attach(&port{h, iface})
}

func (h *host) port() uint16 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.udp
}

func (h *host) interfaces() []Interface {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ifaces)
}

func (h *host) found(a Announcement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.news = append(h.news, a)
}

// told are all news so far.
func (h *host) told() []Announcement {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.news)
}

// alone is what it sent to one host alone.
func (h *host) alone() []packet {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.unicast)
}

// kept are the announcements that it knows now.
func (h *host) kept() []Announcement {
	var all []Announcement
	for _, a := range h.told() {
		all = slices.DeleteFunc(all, func(k Announcement) bool {
			return k.Instance == a.Instance && k.Interface == a.Interface
		})
		if !a.Gone {
			all = append(all, a)
		}
	}
	return all
}

// await waits until it knows n announcements, and returns them and how long that took.
func (h *host) await(n int, limit time.Duration) ([]Announcement, time.Duration) {
	h.t.Helper()
	start := time.Now()
	for {
		kept := h.kept()
		switch took := time.Since(start); {
		case len(kept) == n:
			return kept, took
		case took > limit:
			h.t.Fatalf("knows %d announcements after %v, want %d: %v", len(kept), limit, n, kept)
		}
		time.Sleep(10 * time.Millisecond) // virtual
	}
}

func (h *host) join(ifaces []Interface) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joined = ifaces
}

func (h *host) send(p packet) error {
	if p.to.IsValid() {
		h.mu.Lock()
		h.unicast = append(h.unicast, p)
		h.mu.Unlock()
		return nil
	}
	h.mu.Lock()
	w := h.wires[p.iface.Index]
	h.mu.Unlock()
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut {
		return nil
	}
	var had [2]bool
	for _, a := range p.iface.Addrs {
		from := netip.AddrPortFrom(a.Addr(), mdnsPort)
		if family := len(a.Addr().AsSlice()) / 16; !had[family] {
			had[family] = true
			w.inject(from, p.data)
		}
	}
	return nil
}

func (h *host) close() {
	for _, w := range h.wires {
		w.detach(h)
	}
}

// take is what the host's sockets do with a datagram.
func (h *host) take(d datagram) {
	h.mu.Lock()
	deliver := h.deliver
	if !slices.ContainsFunc(h.joined, func(i Interface) bool { return i.Index == d.iface }) {
		deliver = nil
	}
	h.mu.Unlock()
	if deliver != nil {
		if d.from.Addr().Is6() {
			d.from = netip.AddrPortFrom(d.from.Addr().WithZone("eth"+string(rune('0'+d.iface))), d.from.Port())
		}
		deliver(d)
	}
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, test func(t *testing.T, w *wire)) {
	synctest.Test(t, func(t *testing.T) { test(t, new(wire)) })
}

// v4 and dual are addresses of a host on a LAN.
func v4(n string) []string { return []string{"192.168.7." + n + "/24"} }

func dual(n string) []string { return []string{"192.168.7." + n + "/24", "fe80::" + n + "/64"} }

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
