package discovery

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/discovery/portmap"
	"github.com/meshnet/meshnet/netmap"
)

// Report is what was found out about the networks around the node. Immutable.
type Report struct {
	At   time.Time     // when it was made; zero: nothing is known yet
	Took time.Duration // of the last round, resolving names included
	// UDP: some server answered.
	UDP bool
	// IPv4 and IPv6 are where the nearest server sees the main socket; zero: no server answered by that family.
	IPv4, IPv6 netip.AddrPort
	// Mapped are all the different addresses that servers see, those of the nearest ones first. A socket whose mapping
	// depends on the destination has many.
	Mapped    []netip.AddrPort
	NAT       netmap.NAT
	Mapping   Mapping
	Filtering Filtering
	Hairpin   *bool          // nil: not known, or nothing is translated
	PortMap   portmap.Status // when the report was made
	STUN      []ServerReport // one for each address asked, and one for each name without any
}

// ServerReport is what one address of a STUN server answered.
type ServerReport struct {
	Server  string         // as it was given: "host:port"
	Addr    netip.AddrPort // of the server; zero when the name was not resolved
	Mapped  netip.AddrPort // where it sees the main socket; zero without an answer
	Latency time.Duration
	Err     string // why there is none
}

func serverReport(t Target, a *ask) ServerReport {
	r := ServerReport{Server: t.Server, Addr: t.Addr}
	switch {
	case a.answered() && a.reply.code != 0:
		r.Err = fmt.Sprintf("refused with code %d", a.reply.code)
	case a.answered():
		r.Mapped, r.Latency = a.reply.mapped, a.took
	case a.waiting():
		r.Err = "no answer yet"
	default:
		r.Err = "no answer within " + serverWait.String()
	}
	return r
}
