package netlab

import (
	"io"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netns"
)

// Lab is the world of one test or program. Guarded by mu where it changes.
type Lab struct {
	t T

	mu      sync.Mutex
	procs   []*Process
	closers []io.Closer // captures and namespaces, in the order they were made
}

// New makes an empty world that is taken down when its owner ends. It needs root and /dev/net/tun: see Need.
func New(t T) *Lab {
	t.Helper()
	Need(t, os.Geteuid() == 0, "netlab needs root")
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	Need(t, err == nil, "netlab needs /dev/net/tun")
	tun.Close()
	l := &Lab{t: t}
	t.Cleanup(l.close)
	return l
}

// Host makes a machine with a loopback and nothing else. The name is for messages; a program inside sees the
// machine's real host name.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	h := l.namespace(name)
	for _, path := range []string{"all", "default"} {
		conf4, conf6 := "net/ipv4/conf/"+path, "net/ipv6/conf/"+path
		h.Sysctl(conf4+"/rp_filter", "0")
		h.Sysctl(conf6+"/disable_ipv6", "0")
		h.Sysctl(conf6+"/accept_dad", "0")
		h.Sysctl(conf6+"/accept_ra", "0")
	}
	h.loopbackUp()
	return h
}

// Router makes a machine that forwards IPv4 and IPv6.
func (l *Lab) Router(name string) *Host {
	l.t.Helper()
	h := l.Host(name)
	h.Sysctl("net/ipv4/ip_forward", "1")
	h.Sysctl("net/ipv6/conf/all/forwarding", "1")
	return h
}

// namespace makes a fresh anonymous namespace. It lives as long as its handle or a program inside.
func (l *Lab) namespace(name string) *Host {
	l.t.Helper()
	h := &Host{lab: l, name: name}
	err := onThread(func() (err error) {
		h.ns, err = netns.New()
		return err
	})
	if err != nil {
		l.t.Fatalf("netlab: namespace of %s: %v", name, err)
	}
	l.own(h)
	h.openLinks()
	return h
}

func (l *Lab) own(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, c)
}

// disown forgets what ended before the world did.
func (l *Lab) disown(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = slices.DeleteFunc(l.closers, func(o io.Closer) bool { return o == c })
}

func (l *Lab) close() {
	l.mu.Lock()
	procs, closers := l.procs, l.closers
	l.procs, l.closers = nil, nil
	l.mu.Unlock()
	endAll(procs)
	if l.t.Failed() {
		for _, p := range procs {
			p.report(l.t)
		}
	}
	for _, c := range slices.Backward(closers) {
		if err := c.Close(); err != nil {
			l.t.Errorf("netlab: close: %v", err)
		}
	}
}
