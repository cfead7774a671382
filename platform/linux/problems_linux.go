package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/platform"
)

// anyPort stands for a service that no firewall has a rule of its own for.
const anyPort = 47808

// Problems tells what of the host gets in the way of the interface d and of the UDP port underneath: no TUN device,
// no IPv6, a firewall that certainly drops what arrives, routes that overlap. What cannot be found out, for want of
// rights or because rules are beyond judging, is no problem.
func (s *System) Problems(d platform.Desired, port uint16) []platform.Problem {
	var problems []platform.Problem
	add := func(found bool, p platform.Problem) {
		if found {
			problems = append(problems, p)
		}
	}
	add(noTUN(), platform.Problem{
		Code: "no_tun", Severity: platform.SeverityWarning,
		Text: "there is no /dev/net/tun: the node cannot be a network interface",
		Hint: "load the module (modprobe tun), or give the container /dev/net/tun and CAP_NET_ADMIN",
	})
	add(ipv6Disabled("all"), platform.Problem{
		Code: "ipv6_disabled", Severity: platform.SeverityWarning,
		Text: "IPv6 is disabled on this host: members have no IPv6 address here, and direct paths over IPv6 are out of reach",
		Hint: "sysctl net.ipv6.conf.all.disable_ipv6=0",
	})
	host, err := s.Snapshot()
	if err != nil {
		s.log.Debug("network snapshot failed", "err", err)
	}
	tables, err := rulesets()
	if err != nil {
		s.log.Debug("firewall rules are not readable", "err", err)
	}
	add(interfaceDropped(tables, host, d.Interface), platform.Problem{
		Code: "firewall_interface", Severity: platform.SeverityWarning,
		Text: fmt.Sprintf("this host's firewall drops connections that arrive by %s", d.Interface),
		Hint: fmt.Sprintf("accept them in the input chain: nft insert rule <family> <table> <chain> iifname %q accept", d.Interface),
	})
	add(portDropped(tables, host, port), platform.Problem{
		Code: "firewall_port", Severity: platform.SeverityWarning,
		Text: fmt.Sprintf("this host's firewall drops packets to UDP port %d: others reach it only after it spoke first", port),
		Hint: fmt.Sprintf("accept them in the input chain: nft insert rule <family> <table> <chain> udp dport %d accept", port),
	})
	return append(problems, platform.OverlapProblems(host, d)...)
}

func noTUN() bool {
	_, err := os.Stat("/dev/net/tun")
	return errors.Is(err, fs.ErrNotExist)
}

func interfaceDropped(tables []*ruleset, host platform.Host, name string) bool {
	p := packet{link: name, protocol: unix.IPPROTO_TCP, port: anyPort}
	for _, l := range host.Links {
		if l.Name == name {
			p.linkIndex = uint32(l.Index)
		}
	}
	return name != "" && droppedBy(tables, p)
}

// portDropped: on every link that candidate addresses come from.
func portDropped(tables []*ruleset, host platform.Host, port uint16) bool {
	links := 0
	for _, l := range host.Links {
		if !l.Up || !l.Running || l.Loopback || l.Tunnel() || len(l.Addrs) == 0 {
			continue
		}
		links++
		p := packet{link: l.Name, linkIndex: uint32(l.Index), protocol: unix.IPPROTO_UDP, port: port}
		if !droppedBy(tables, p) {
			return false
		}
	}
	return port != 0 && links > 0
}

func droppedBy(tables []*ruleset, p packet) bool {
	return slices.ContainsFunc(tables, func(t *ruleset) bool { return t.drops(p) })
}

// rulesets reads the tables that see IPv4 packets.
func rulesets() ([]*ruleset, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	var all []*ruleset
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4} {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list chains: %w", err)
		}
		tables := map[string]*ruleset{}
		for _, c := range chains {
			r := tables[c.Table.Name]
			if r == nil {
				r = &ruleset{chains: map[string]chain{}}
				if r.sets, err = sets(conn, c.Table); err != nil {
					return nil, err
				}
				tables[c.Table.Name] = r
				all = append(all, r)
			}
			if r.chains[c.Name], err = readChain(conn, c); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func readChain(conn *nftables.Conn, c *nftables.Chain) (chain, error) {
	rules, err := conn.GetRules(c.Table, c)
	if err != nil {
		return chain{}, fmt.Errorf("list rules of %s %s: %w", c.Table.Name, c.Name, err)
	}
	return chain{
		base:  c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookInput && c.Type == nftables.ChainTypeFilter,
		drops: c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop,
		rules: rules,
	}, nil
}

func sets(conn *nftables.Conn, t *nftables.Table) (map[string]set, error) {
	all, err := conn.GetSets(t)
	if err != nil {
		return nil, fmt.Errorf("list sets of %s: %w", t.Name, err)
	}
	found := map[string]set{}
	for _, s := range all {
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("list set %s: %w", s.Name, err)
		}
		found[s.Name] = set{intervals: s.Interval, concatenated: s.Concatenation, elements: elements}
	}
	return found, nil
}
