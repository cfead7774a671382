package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/meshnet/meshnet"
)

const (
	minMTU        = 1280 // RFC 8200 §5
	maxMTU        = 65535
	minPrefix     = 8
	maxPrefix     = 20
	maxTokenFile  = 64 << 10
	lookUpTimeout = 10 * time.Second
)

// flagError is a wrong value of a flag.
type flagError struct {
	flag string
	err  error
}

func (f *flagError) Error() string { return "--" + f.flag + ": " + f.err.Error() }
func (f *flagError) Unwrap() error { return f.err }

// config is what the flags mean; given tells which of them were given, root whether we may make a TUN. Join, Dir and
// Logger are left open. Wrong values are *flagError.
func (u upFlags) config(given func(string) bool, root bool, lookUp func(host string) ([]netip.Addr, error)) (meshnet.Config, error) {
	c := meshnet.Config{
		JoinTimeout:    u.joinTimeout,
		Network:        u.network,
		Hostname:       u.hostname,
		MTU:            u.mtu,
		Port:           u.port,
		PortFixed:      given("port"),
		ForwardInbound: u.forwardInbound,
		Metrics:        u.metrics,
	}
	if err := u.check(given); err != nil {
		return c, err
	}
	var err error
	if c.Prefix4, err = parsePrefix(u.cidr); err != nil {
		return c, &flagError{"cidr", err}
	}
	if err := u.paths.config(&c, given); err != nil {
		return c, err
	}
	u.find.config(&c)
	u.tunConfig(&c, given)
	u.proxyConfig(&c, given, root)
	c.Advertise, err = resolve(u.advertise, lookUp)
	return c, err
}

// check finds values that mean nothing.
func (u upFlags) check(given func(string) bool) error {
	switch {
	case u.joinTimeout < 0:
		return &flagError{"join-timeout", errors.New("less than nothing")}
	case u.mtu < minMTU || u.mtu > maxMTU:
		return &flagError{"mtu", fmt.Errorf("%d is not within %d to %d", u.mtu, minMTU, maxMTU)}
	case given("tun") && u.tun == "":
		return &flagError{"tun", errors.New("an empty name")}
	case given("tun") && u.userspace:
		return &flagError{"tun", errors.New("not together with --userspace")}
	case given("hostname") && strings.TrimSpace(u.hostname) == "":
		return &flagError{"hostname", errors.New("an empty name")}
	case given("network") && strings.TrimSpace(u.network) == "":
		return &flagError{"network", errors.New("an empty name")}
	}
	if err := u.paths.check(given); err != nil {
		return err
	}
	if err := u.find.check(given); err != nil {
		return err
	}
	return checkHostPorts([]hostPorts{
		{"advertise", u.advertise, false},
		{"socks5", nonEmpty(u.socks5), true},
		{"http-proxy", nonEmpty(u.httpProxy), true},
		{"metrics", nonEmpty(u.metrics), true},
	})
}

// tunConfig: an interface that was named has to come; otherwise one is made where that is possible.
func (u upFlags) tunConfig(c *meshnet.Config, given func(string) bool) {
	switch {
	case given("tun"):
		c.TUN, c.Interface = meshnet.TUNRequire, u.tun
	case u.userspace:
		c.TUN = meshnet.TUNOff
	default:
		c.TUN = meshnet.TUNTry
	}
}

// proxyConfig: with neither given both are defaults, which the node uses in userspace mode only. With one given, that
// one is fixed, and the other keeps its default where a TUN is not to be expected.
func (u upFlags) proxyConfig(c *meshnet.Config, given func(string) bool, root bool) {
	socks, http := given("socks5"), given("http-proxy")
	c.SOCKS5, c.HTTPProxy, c.ProxyFixed = u.socks5, u.httpProxy, socks || http
	userspace := c.TUN == meshnet.TUNOff || c.TUN == meshnet.TUNTry && !root
	if !socks && (!http || userspace) {
		c.SOCKS5 = defaultSOCKS
	}
	if !http && (!socks || userspace) {
		c.HTTPProxy = defaultHTTP
	}
}

// settleProxies moves a default proxy address that is taken to a free port where the other one is fixed: both share
// Config.ProxyFixed. An address that was given is fixed even when it is the default one.
func settleProxies(c *meshnet.Config, given func(string) bool) {
	if !c.ProxyFixed {
		return
	}
	for _, p := range []struct {
		flag         string
		addr         *string
		defaultValue string
	}{{"socks5", &c.SOCKS5, defaultSOCKS}, {"http-proxy", &c.HTTPProxy, defaultHTTP}} {
		if given(p.flag) || *p.addr != p.defaultValue {
			continue
		}
		if ln, err := net.Listen("tcp", *p.addr); err == nil {
			_ = ln.Close()
		} else {
			*p.addr = "127.0.0.1:0"
		}
	}
}

func parsePrefix(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is not a prefix such as 100.88.0.0/16", text)
	case !p.Addr().Is4():
		return p, fmt.Errorf("%s is not an IPv4 prefix", p)
	case p.Bits() < minPrefix || p.Bits() > maxPrefix:
		return p, fmt.Errorf("%s is not within /%d to /%d", p, minPrefix, maxPrefix)
	case p != p.Masked():
		return p, fmt.Errorf("%s has bits set beyond its length: %s is meant", p, p.Masked())
	}
	return p, nil
}

func nonEmpty(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// hostPorts are the values of a flag.
type hostPorts struct {
	flag   string
	values []string
	zero   bool // port 0 is one, and the host may be left out
}

func checkHostPorts(all []hostPorts) error {
	for _, l := range all {
		for _, v := range l.values {
			if err := checkHostPort(v, l.zero); err != nil {
				return &flagError{l.flag, err}
			}
		}
	}
	return nil
}

func checkHostPort(value string, zero bool) error {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return fmt.Errorf("%q is not host:port", value)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 && !zero {
		return fmt.Errorf("%q has no port within 1 to 65535", value)
	}
	if host == "" && !zero {
		return fmt.Errorf("%q names no host", value)
	}
	return nil
}

// resolve makes addresses of host:port.
func resolve(values []string, lookUp func(host string) ([]netip.Addr, error)) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, v := range values {
		if ap, err := netip.ParseAddrPort(v); err == nil {
			out = append(out, ap)
			continue
		}
		host, port, _ := net.SplitHostPort(v) // checked before
		n, _ := strconv.ParseUint(port, 10, 16)
		addrs, err := lookUp(host)
		if err != nil {
			return nil, fmt.Errorf("--advertise %s: %w", v, err)
		}
		for _, addr := range addrs {
			out = append(out, netip.AddrPortFrom(addr.Unmap(), uint16(n)))
		}
	}
	for _, a := range out {
		if ip := a.Addr().Unmap(); ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return nil, &flagError{"advertise", fmt.Errorf("%s is not the address of one host", ip)}
		}
	}
	return out, nil
}

func lookUp(host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// token reads what --join names. "": none.
func (a *app) token(join string) (string, error) {
	var text string
	var err error
	switch {
	case join == "":
		return "", nil
	case join == "-":
		text, err = firstLine(a.stdin)
	case strings.HasPrefix(join, "@"):
		var f *os.File
		if f, err = os.Open(join[1:]); err == nil {
			text, err = firstLine(f)
			f.Close()
		}
	default:
		text = strings.TrimSpace(join)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("read the token: %w", err)
	case text == "":
		return "", failed("read the token", fmt.Errorf("%w: empty", meshnet.ErrToken))
	}
	return text, nil
}

// firstLine is the first line of r with something on it.
func firstLine(r io.Reader) (string, error) {
	s := bufio.NewScanner(io.LimitReader(r, maxTokenFile))
	for s.Scan() {
		if text := strings.TrimSpace(s.Text()); text != "" {
			return text, nil
		}
	}
	return "", s.Err()
}
