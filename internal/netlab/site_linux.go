package netlab

import (
	"fmt"
	"net/netip"
)

// SiteConfig says what a site is like.
type SiteConfig struct {
	Kind Kind
	// Behind is the site whose inside is this one's outside: a NAT behind a NAT. nil is the Internet itself. Only for
	// kinds with a router.
	Behind *Site
	// IPv6 gives hosts public IPv6 addresses beside IPv4; the router lets in what was asked for. Without it, IPv4 is
	// all they have, so that a test of NAT kinds tests those.
	IPv6 bool
	// Hairpin makes the NAT hairpin: see Host.Hairpin. With CGNAT the carrier's does too.
	Hairpin bool
	// Line is the cable to the outside: the router's, with CGNAT the carrier's, or with None and Firewalled each
	// host's.
	Line Line
	// BlackHole keeps the messages from senders that a packet is larger than the line's MTU.
	BlackHole bool
}

// maxSites bounds routers and carriers, and hosts at a site: what an IPv4 subnet has room for.
const maxSites = 250

// Site is a place on the Internet where hosts are: a LAN behind a router, or public addresses. For the test's
// goroutine.
type Site struct {
	Kind    Kind
	Router  *Host  // nil for None and Firewalled, whose hosts are on the Internet themselves
	Outside *Iface // the router's card outside; nil without a router
	Inside  string // the router's interface inside; empty without a router
	Carrier *Site  // with CGNAT: the carrier, behind which other sites can be put too

	w      *Internet
	cfg    SiteConfig
	lan    *Switch
	net4   netip.Prefix // of the LAN; zero without IPv4
	net6   netip.Prefix // of the LAN; zero without IPv6
	pfx6   netip.Prefix // the /48 that the LAN is of, and those of the sites behind
	behind int          // subnets of pfx6 given away
	hosts  int
}

// Site makes a place of a kind, on IPv4 alone unless it is IPv6Only.
func (w *Internet) Site(kind Kind) *Site {
	w.lab.t.Helper()
	return w.AddSite(SiteConfig{Kind: kind})
}

// AddSite makes a place. An Internet has room for 250 routers, carriers and public hosts each.
func (w *Internet) AddSite(cfg SiteConfig) *Site {
	w.lab.t.Helper()
	s := &Site{Kind: cfg.Kind, w: w, cfg: cfg}
	switch cfg.Kind {
	case None, Firewalled:
		if cfg.Behind != nil {
			w.lab.t.Fatalf("netlab: a site of kind %v is behind nothing", cfg.Kind)
		}
		return s
	case CGNAT:
		carrier := cfg
		carrier.Kind = PortRestricted
		s.Carrier = &Site{Kind: PortRestricted, w: w, cfg: carrier}
		s.Carrier.build("carrier", "100.64.%d.0/24")
		s.cfg.Behind, s.cfg.Line, s.cfg.BlackHole = s.Carrier, Line{}, false
	}
	s.build("router", "192.168.%d.0/24")
	return s
}

// build makes the router with both its sides.
func (s *Site) build(name, net4 string) {
	w := s.w
	w.lab.t.Helper()
	w.sites++
	if w.sites > maxSites {
		w.lab.t.Fatalf("netlab: no more than %d routers and carriers", maxSites)
	}
	s.Router = w.lab.Router(fmt.Sprintf("%s %d (%v)", name, w.sites, s.Kind))
	if s.hasIPv4() {
		s.net4 = netip.MustParsePrefix(fmt.Sprintf(net4, w.sites))
	}
	s.connect()
	s.lan = s.Router.Switch(s.inside(1)...)
	s.Inside = s.lan.bridge.Attrs().Name
	s.translate()
	s.blackHole(s.Outside)
}

func (s *Site) hasIPv4() bool { return s.Kind != IPv6Only }
func (s *Site) hasIPv6() bool { return s.Kind == IPv6Only || s.cfg.IPv6 }

// connect gives the router its side outside, and its LAN the way back.
func (s *Site) connect() {
	w := s.w
	w.lab.t.Helper()
	if up := s.cfg.Behind; up != nil {
		s.Outside = up.join(s.Router, s.cfg.Line)
	} else {
		s.Outside = w.attach(s.Router, accessNet, s.hasIPv4(), s.hasIPv6(), s.cfg.Line)
	}
	if !s.hasIPv6() {
		return
	}
	if s.cfg.Behind == nil {
		s.pfx6 = netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/48", 0x1000+w.sites))
		w.core.Route(s.pfx6.String(), s.Outside.Addr6().String())
		s.net6 = s.subnet6()
		return
	}
	s.net6 = s.cfg.Behind.delegate(s.Outside.Addr6())
}

// subnet6 is the next /64 of the site's prefix.
func (s *Site) subnet6() netip.Prefix {
	s.behind++
	b := s.pfx6.Addr().As16()
	b[7] = byte(s.behind)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// delegate gives a subnet to a router on the LAN.
func (s *Site) delegate(to netip.Addr) netip.Prefix {
	s.w.lab.t.Helper()
	var subnet netip.Prefix
	switch {
	case !s.hasIPv6():
		s.w.lab.t.Fatalf("netlab: %s has no IPv6 for a site behind it", s.Router.name)
	case s.cfg.Behind != nil:
		subnet = s.cfg.Behind.delegate(s.Outside.Addr6())
	default:
		subnet = s.subnet6()
	}
	s.Router.Route(subnet.String(), to.String())
	return subnet
}

func (s *Site) translate() {
	s.w.lab.t.Helper()
	switch s.Kind {
	case IPv6Only:
		s.Router.Firewall(s.Outside)
		return
	case CGNAT:
		s.Router.NAT(PortRestricted, s.Outside)
	case UDPBlocked:
		s.Router.NAT(PortRestricted, s.Outside)
		s.Router.BlockUDP()
	default:
		s.Router.NAT(s.Kind, s.Outside)
	}
	if s.cfg.Hairpin {
		s.Router.Hairpin()
	}
}

// inside are the addresses of host n on the LAN; the router is host 1.
func (s *Site) inside(n int) (addrs []string) {
	if s.net4.IsValid() {
		b := s.net4.Addr().As4()
		b[3] = byte(n)
		addrs = append(addrs, netip.PrefixFrom(netip.AddrFrom4(b), s.net4.Bits()).String())
	}
	if s.net6.IsValid() {
		addrs = append(addrs, host6(s.net6, byte(n)).String())
	}
	return addrs
}

// Host makes a host at the site.
func (s *Site) Host(name string) *Host {
	s.w.lab.t.Helper()
	h := s.w.lab.Host(name)
	s.Join(h)
	return h
}

// Join gives a host another card, which is at the site, and makes it the host's way to the Internet. A card that it
// had before keeps working for its own subnet only.
func (s *Site) Join(h *Host) *Iface {
	s.w.lab.t.Helper()
	return s.join(h, Line{})
}

func (s *Site) join(h *Host, line Line) *Iface {
	s.w.lab.t.Helper()
	h.dropRoute("0.0.0.0/0")
	h.dropRoute("::/0")
	if s.lan == nil {
		card := s.w.attach(h, accessNet, true, s.cfg.IPv6, s.cfg.Line)
		if s.Kind == Firewalled {
			h.Firewall(card)
		}
		s.blackHole(card)
		return card
	}
	s.hosts++
	if s.hosts > maxSites {
		s.w.lab.t.Fatalf("netlab: no more room in %s", s.Router.name)
	}
	card := h.plug(s.lan, s.inside(s.hosts+1), line)
	if s.net4.IsValid() {
		h.DefaultRoute(gateway(s.net4).String())
	}
	if s.net6.IsValid() {
		h.DefaultRoute(gateway(s.net6).String())
	}
	return card
}

// Move takes a host from where it is to the site, as a laptop from one network to another: all its cards go, with
// their addresses, and it gets a new one.
func (s *Site) Move(h *Host) *Iface {
	s.w.lab.t.Helper()
	for c := h.Card(); c != nil; c = h.Card() {
		c.Remove()
	}
	return s.Join(h)
}
