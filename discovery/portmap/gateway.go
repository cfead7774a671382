package portmap

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Gateway is a router that a default IPv4 route leads to.
type Gateway struct {
	Addr netip.Addr
	Self netip.Addr // our address on the same link
}

// route is a default route.
type route struct {
	iface  string
	via    netip.Addr
	metric int
}

// maxRoutes bounds what is read of a routing table.
const maxRoutes = 4096

// parseRoutes reads Linux' table of IPv4 routes and returns those of default gateways, the preferred first.
func parseRoutes(table io.Reader) []route {
	const up, gateway = 0x1, 0x2
	var all []route
	lines := bufio.NewScanner(table)
	for n := 0; lines.Scan() && n < maxRoutes; n++ {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		flags, err := strconv.ParseUint(f[3], 16, 16)
		if err != nil || flags&(up|gateway) != up|gateway {
			continue
		}
		// The address is printed as a number of the machine's byte order.
		raw, err := hex.DecodeString(f[2])
		if err != nil || len(raw) != 4 {
			continue
		}
		via := fromNative([4]byte(raw))
		metric, err := strconv.Atoi(f[6])
		if err != nil || !usable(via) {
			continue
		}
		all = append(all, route{f[0], via, metric})
	}
	slices.SortStableFunc(all, func(a, b route) int { return cmp.Compare(a.metric, b.metric) })
	return all
}

// fromNative turns the digits of a number in the machine's byte order into the address that it stands for.
func fromNative(digits [4]byte) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], binary.BigEndian.Uint32(digits[:]))
	return netip.AddrFrom4(b)
}

// usable reports whether a gateway may have the address.
func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback()
}
