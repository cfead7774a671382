package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is a machine: one network namespace. Its set-up calls are for the test's goroutine; Do, Start, Ping, Listen
// and Dial may be called from any.
type Host struct {
	lab   *Lab
	name  string
	ns    netns.NsHandle
	links *netlink.Handle

	mntOnce sync.Once // sets mnt and mntErr
	mnt     int       // its mount namespace; 0 until then
	mntErr  error

	nats       []*nat        // what it translates; as udpTimeout, for the test's goroutine
	udpTimeout time.Duration // 0: the default

	mu       sync.Mutex
	plugs    int // interfaces made so far, for their names
	switches int // built-in switches, for theirs
	tables   int // firewall tables, for theirs
	cards    []*Iface
	routes   []*netlink.Route
}

// Name is the name it was made with.
func (h *Host) Name() string { return h.name }

// Do runs fn in the host's namespace, on the calling goroutine with its thread held. What fn opens (sockets, TUN
// devices, programs) stays in the namespace for good; a goroutine that fn starts runs outside.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter %s: %w", h.name, err)
		}
		return fn()
	})
}

// onThread runs fn, which may change the thread's namespace, and changes it back. A thread that cannot be changed
// back stays locked to its goroutine and ends with it, so that no other goroutine is ever run in a wrong namespace.
func onThread(fn func() error) (err error) {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer before.Close()
	defer func() {
		if back := netns.Set(before); back != nil {
			err = errors.Join(err, fmt.Errorf("leave namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return fn()
}

// Listen announces on an address of the host, like net.Listen. The address must be a literal.
func (h *Host) Listen(network, addr string) (ln net.Listener, err error) {
	err = h.Do(func() error {
		ln, err = net.Listen(network, addr)
		return err
	})
	return ln, err
}

// ListenPacket opens a packet socket on the host, like net.ListenPacket. The address must be a literal.
func (h *Host) ListenPacket(network, addr string) (pc net.PacketConn, err error) {
	err = h.Do(func() error {
		pc, err = net.ListenPacket(network, addr)
		return err
	})
	return pc, err
}

// Dial connects from the host, like net.Dialer.DialContext. The address must be a literal: a name would be looked
// up outside.
func (h *Host) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Sysctl sets a kernel parameter of the namespace, named as below /proc/sys: "net/ipv4/ip_forward".
func (h *Host) Sysctl(name, value string) {
	h.lab.t.Helper()
	h.must("sysctl "+name, h.trySysctl(name, value))
}

func (h *Host) trySysctl(name, value string) error {
	return h.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
	})
}

// Card is the host's first network card that is still there. It is nil when there is none.
func (h *Host) Card() *Iface {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.cards) == 0 {
		return nil
	}
	return h.cards[0]
}

// dropCard forgets a card that was removed, with the routes that led to it.
func (h *Host) dropCard(i *Iface) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cards = slices.DeleteFunc(h.cards, func(o *Iface) bool { return o == i })
	h.routes = slices.DeleteFunc(h.routes, func(r *netlink.Route) bool { return r.LinkIndex == i.link.Attrs().Index })
}

// DefaultRoute sends what has no other route to via, in via's address family. It replaces the one before.
func (h *Host) DefaultRoute(via string) {
	h.lab.t.Helper()
	if netip.MustParseAddr(via).Is4() {
		h.Route("0.0.0.0/0", via)
	} else {
		h.Route("::/0", via)
	}
}

// Route sends packets for cidr to via. It replaces an earlier route for cidr, and comes back when an interface that
// was down is up again.
func (h *Host) Route(cidr, via string) {
	h.lab.t.Helper()
	dst, err := netlink.ParseIPNet(cidr)
	h.must("route "+cidr, err)
	h.addRoute(&netlink.Route{Dst: dst, Gw: net.IP(netip.MustParseAddr(via).AsSlice())})
}

func (h *Host) addRoute(r *netlink.Route) {
	h.lab.t.Helper()
	h.must("route "+r.Dst.String(), h.links.RouteReplace(r))
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, o := range h.routes {
		if o.Dst.String() == r.Dst.String() {
			h.routes[i] = r
			return
		}
	}
	h.routes = append(h.routes, r)
}

// dropRoute forgets a route that was added, if there is one.
func (h *Host) dropRoute(cidr string) {
	h.lab.t.Helper()
	h.mu.Lock()
	at := slices.IndexFunc(h.routes, func(r *netlink.Route) bool { return r.Dst.String() == cidr })
	var r *netlink.Route
	if at >= 0 {
		r = h.routes[at]
		h.routes = slices.Delete(h.routes, at, at+1)
	}
	h.mu.Unlock()
	if r == nil {
		return
	}
	// The kernel drops it by itself with the interface.
	if err := h.links.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		h.must("remove route "+cidr, err)
	}
}

// restoreRoutes puts back what the kernel dropped with an interface. A route through one that is still down cannot
// be put back yet, and need not be.
func (h *Host) restoreRoutes() {
	h.lab.t.Helper()
	h.mu.Lock()
	routes := slices.Clone(h.routes)
	h.mu.Unlock()
	for _, r := range routes {
		if err := h.links.RouteReplace(r); err != nil && !errors.Is(err, unix.ENETUNREACH) &&
			!errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETDOWN) {
			h.must("restore route "+r.Dst.String(), err)
		}
	}
}

// Close gives up the namespace; the lab calls it at the test's end.
func (h *Host) Close() error {
	if h.links != nil {
		h.links.Close()
	}
	if h.mnt > 0 {
		unix.Close(h.mnt)
	}
	return h.ns.Close()
}

func (h *Host) openLinks() {
	h.lab.t.Helper()
	var err error
	h.links, err = netlink.NewHandleAt(h.ns)
	h.must("open netlink", err)
}

func (h *Host) loopbackUp() {
	h.lab.t.Helper()
	lo, err := h.links.LinkByName("lo")
	h.must("find lo", err)
	h.must("set lo up", h.links.LinkSetUp(lo))
}

// must ends the test when a step of building it failed.
func (h *Host) must(what string, err error) {
	h.lab.t.Helper()
	if err != nil {
		h.lab.t.Fatalf("netlab: %s: %s: %v", h.name, what, err)
	}
}
