package relayserver

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/meshnet/meshnet/relay"
)

// errNoName is for a certificate from an authority that is good for no name that could be told.
var errNoName = errors.New("the certificate has no name to tell clients: say which host it is reached by")

// findURL is what clients dial: Config.Public, or the certificate's name, or an address of this host.
func (f *Front) findURL() (relay.URL, error) {
	host, port := f.cfg.Public, ""
	if h, p, err := net.SplitHostPort(f.cfg.Public); err == nil {
		host, port = h, p
	}
	host = strings.Trim(host, "[]")
	if host == "" {
		host = f.certs.name
	}
	if host == "" {
		if !f.certs.pinned {
			return relay.URL{}, errNoName
		}
		host = publicAddr(f.addr.Addr()).String()
	}
	text := "https://" + net.JoinHostPort(host, cmp.Or(port, strconv.Itoa(int(f.addr.Port()))))
	u, err := relay.ParseURL(text)
	if err != nil {
		return relay.URL{}, fmt.Errorf("public address: %w", err)
	}
	if f.certs.pinned {
		u.Pin = f.certs.hash
	}
	return u, nil
}

// publicAddr is the address at which others most likely reach a socket bound to addr.
func publicAddr(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if !addr.IsUnspecified() {
		return addr.WithZone("")
	}
	// The source address towards the documentation networks: nothing is sent.
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		conn, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		conn.Close()
		if !local.IsUnspecified() && !local.IsLoopback() {
			return local.WithZone("")
		}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr()
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
