package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/meshnet/meshnet/internal/netlab"
)

const (
	addrA, addrB = "192.168.7.1", "192.168.7.2" // outside of the tunnel, the same in every lane
	addrM        = "192.168.7.3"                // of a host between the two: on the cable to a
	addrFarB     = "192.168.8.2"                // then b is here,
	addrFarM     = "192.168.8.3"                // and this is the other end of its cable
	startTime    = 30 * time.Second             // for a carrier to carry its first packet
)

// side is one end of a lane.
type side struct {
	host   *netlab.Host
	dir    string          // for its files; the carrier makes it
	outer  netip.Addr      // on the cable
	inner  netip.Addr      // where the other side reaches it through the carrier
	listen netip.Addr      // where a program listens to be reached at inner
	socks  string          // the proxy to dial through; none for ""
	daemon *netlab.Process // nil for none
}

// lane is one carrier at work between two hosts of its own, joined by a cable of its own: carriers that look for
// paths must not find one through another carrier.
type lane struct {
	name    string
	a, b    *side
	mid     *side  // relays between them, with a cable to each; nil: they have a cable to each other
	port    uint16 // UDP port of b's daemon, for the flood test; 0: not part of it
	tcpOnly bool
}

// sides are all hosts of the lane.
func (l *lane) sides() []*side {
	if l.mid == nil {
		return []*side{l.a, l.b}
	}
	return []*side{l.a, l.b, l.mid}
}

// pids are those of the lane's daemons.
func (l *lane) pids() (pids []int) {
	for _, s := range l.sides() {
		if s.daemon != nil {
			pids = append(pids, s.daemon.Pid())
		}
	}
	return pids
}

// alive returns an error with the output of a daemon that has ended.
func (l *lane) alive() error {
	for _, s := range l.sides() {
		if s.daemon == nil {
			continue
		}
		select {
		case <-s.daemon.Done():
			return fmt.Errorf("the daemon on %s has ended:\n%s", s.host.Name(), s.daemon.Output())
		default:
		}
	}
	return nil
}

// site is where lanes are built. Owned by the run's goroutine.
type site struct {
	lab     *netlab.Lab
	dir     string // temporary
	self    string // this program
	meshnet string // the binary under test; built when it is empty
	bare    string // wireguard-go, once built
	mtu     int    // inner; 0 for each carrier's own
	taken   int    // lanes so far, for the names of folders
}

// lane makes two hosts and the cable between them.
func (s *site) lane(name string, cableMTU int) *lane {
	s.taken++
	l := &lane{name: name, a: s.side(name+"-a", addrA), b: s.side(name+"-b", addrB)}
	l.a.host.Cable(l.b.host, addrA+"/24", addrB+"/24", cableMTU)
	return l
}

// farLane makes three hosts and two cables. Both ends reach the one between them at addrM. It forwards nothing, so
// they do not reach each other: not with UDP, nor with anything else.
func (s *site) farLane(name string) *lane {
	s.taken++
	l := &lane{name: name, a: s.side(name+"-a", addrA), b: s.side(name+"-b", addrFarB), mid: s.side(name+"-m", addrM)}
	l.a.host.Cable(l.mid.host, addrA+"/24", addrM+"/24", 0)
	l.b.host.Cable(l.mid.host, addrFarB+"/24", addrFarM+"/24", 0)
	l.a.host.DefaultRoute(addrM)
	l.b.host.DefaultRoute(addrFarM)
	return l
}

// side makes a host of the lane that was taken last.
func (s *site) side(name, addr string) *side {
	at := netip.MustParseAddr(addr)
	return &side{
		host: s.lab.Host(name), dir: filepath.Join(s.dir, fmt.Sprintf("%d-%s", s.taken, name)),
		outer: at, inner: at, listen: at,
	}
}

// give names the inner addresses of both sides, where a program listens at the same address.
func (l *lane) give(a, b string) {
	l.a.inner, l.b.inner = netip.MustParseAddr(a), netip.MustParseAddr(b)
	l.a.listen, l.b.listen = l.a.inner, l.b.inner
}

// setDevice gives a daemon's device its address and, if it is not 0, its MTU, and switches it on. It waits for the
// device to appear.
func (x *side) setDevice(ctx context.Context, name string, mtu int) error {
	var link netlink.Link
	err := poll(ctx, func() error {
		return x.host.Do(func() (err error) {
			link, err = netlink.LinkByName(name)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("device %s on %s: %w", name, x.host.Name(), err)
	}
	return x.host.Do(func() error {
		if mtu > 0 {
			if err := netlink.LinkSetMTU(link, mtu); err != nil {
				return err
			}
		}
		addr, err := netlink.ParseAddr(x.inner.String() + "/24")
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
}

// proven returns when an echo has come back through the lane.
func (l *lane) proven(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if _, err := l.a.host.PingUntil(ctx, l.b.inner); err != nil {
		return errors.Join(err, l.alive())
	}
	return nil
}

// poll calls f until it works, and returns its last error when ctx ends or startTime is over.
func poll(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}
