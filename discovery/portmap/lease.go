package portmap

import (
	"errors"
	"net/netip"
	"time"
)

const (
	// lifetime is what is asked for.
	lifetime = 7200 * time.Second
	// Whatever a router grants, a lease is not renewed more often, nor trusted for longer.
	minLife, maxLife = 20 * time.Second, 24 * time.Hour
)

// errNoAddress is a router without an outside address, or with one that cannot be ours.
var errNoAddress = errors.New("the router has no outside address")

// lease is one mapping. Immutable.
type lease struct {
	protocol Protocol
	gw       Gateway
	port     uint16 // inside
	external netip.AddrPort
	renew    time.Time
	expires  time.Time
	igd      *igd // of UPnP
}

// newLease checks what a router granted, and for how long.
func newLease(now time.Time, p Protocol, gw Gateway, port uint16, external netip.AddrPort, granted time.Duration) (*lease, error) {
	ip := external.Addr()
	if external.Port() == 0 || !ip.Is4() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() || granted <= 0 {
		return nil, errNoAddress
	}
	granted = min(max(granted, minLife), maxLife)
	return &lease{
		protocol: p, gw: gw, port: port, external: external,
		renew: now.Add(granted / 2), expires: now.Add(granted),
	}, nil
}

// global reports whether the outside address may be reached from the whole Internet.
func (l *lease) global() bool {
	ip := l.external.Addr()
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !sharedSpace.Contains(ip)
}

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598: behind a carrier's NAT
