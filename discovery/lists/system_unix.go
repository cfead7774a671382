//go:build unix && !darwin

package lists

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

const resolvConf = "/etc/resolv.conf"

// systemResolver asks the system's DNS servers itself, to learn times to live, and has the system look hosts up.
func systemResolver() resolver {
	return asking{
		system:  system{net.DefaultResolver},
		servers: func() ([]netip.AddrPort, error) { return configured(resolvConf) },
	}
}

// configured are the servers of a resolv.conf; the machine's own if it names none, as resolv.conf(5) says.
func configured(file string) ([]netip.AddrPort, error) {
	conf, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, err
	}
	var servers []netip.AddrPort
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, netip.AddrPortFrom(a, 53))
		}
	}
	if len(servers) == 0 {
		servers = append(servers, netip.MustParseAddrPort("127.0.0.1:53"))
	}
	return servers, nil
}
