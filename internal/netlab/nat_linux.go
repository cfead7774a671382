package netlab

import (
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NATKind is how a router chooses the outside port. Both filter by address and port (RFC 4787 §5).
type NATKind int

const (
	// Masquerade keeps the inside port while it is free: as seen from outside, a mapping that does not depend on
	// the destination. Most home routers.
	Masquerade NATKind = iota
	// RandomPorts draws a new port for every destination: the mapping that hole punching cannot guess.
	RandomPorts
)

// NAT makes the router translate IPv4 to the address of outside, and refuse what nobody inside asked for. IPv6 is
// routed without translation and refused the same way.
//
// What is unsolicited is dropped in INPUT too: an answer of the router's own stack, or just the conntrack entry of
// an accepted packet, would take the port that the inside host needs next, and no home router does that.
func (h *Host) NAT(kind NATKind, outside *Iface) {
	h.lab.t.Helper()
	c, table := h.newTable()
	post := c.AddChain(&nftables.Chain{
		Table: table, Name: "translate", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	masq := append(onFamily(unix.NFPROTO_IPV4), onIface(expr.MetaKeyOIFNAME, outside.name)...)
	masq = append(masq, &expr.Masq{FullyRandom: kind == RandomPorts})
	c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: masq})
	for name, hook := range map[string]*nftables.ChainHook{
		"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward,
	} {
		ch := c.AddChain(&nftables.Chain{
			Table: table, Name: name, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter,
		})
		drop := append(onIface(expr.MetaKeyIIFNAME, outside.name), unsolicited()...)
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: append(drop, &expr.Verdict{Kind: expr.VerdictDrop})})
	}
	h.must("NAT", c.Flush())
}

// UDPTimeout sets how long the host's connection tracking keeps a UDP mapping, in whole seconds.
func (h *Host) UDPTimeout(d time.Duration) {
	h.lab.t.Helper()
	s := strconv.Itoa(int(d / time.Second))
	h.Sysctl("net/netfilter/nf_conntrack_udp_timeout", s)
	h.Sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", s)
}

// ForgetFlows empties the host's connection tracking: every mapping of its NAT is gone, as after a restart.
func (h *Host) ForgetFlows() {
	h.lab.t.Helper()
	h.must("flush conntrack", h.links.ConntrackTableFlush(netlink.ConntrackTable))
}

// newTable adds an empty firewall table for both address families to a batch of its own.
func (h *Host) newTable() (*nftables.Conn, *nftables.Table) {
	h.lab.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(int(h.ns)))
	h.must("open nftables", err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tables++
	name := "netlab" + strconv.Itoa(h.tables)
	return c, c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
}

func onFamily(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

func onIface(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

// unsolicited matches packets of no known flow. Neighbour discovery is untracked, so it passes.
func unsolicited() []expr.Any {
	mask := binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW | expr.CtStateBitINVALID)
	zero := make([]byte, 4)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: zero},
	}
}
