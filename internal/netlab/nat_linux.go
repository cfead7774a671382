package netlab

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// defaultUDPTimeout is what a mapping lives without outgoing packets (RFC 4787 §4.3: not less than two minutes).
const defaultUDPTimeout = 2 * time.Minute

// nat is a translation that a router does. Guarded by the test's goroutine.
type nat struct {
	kind    Kind
	outside *Iface
	hairpin bool
	tables  []*nftables.Table
	sets    []*nftables.Set // the mappings that the rules remember
}

// NAT makes the router translate IPv4 to the address of outside, and refuse what nobody inside asked for. The kind is
// FullCone, AddressRestricted, PortRestricted or Symmetric; it holds for UDP, while TCP is always filtered by address
// and port. A port is kept as long as no other inside host uses it (RFC 4787 §4.2.1). IPv6 is routed without
// translation, and what is unsolicited is refused.
//
// What is unsolicited is dropped in INPUT too: an answer of the router's own stack, or just the conntrack entry of
// an accepted packet, would take the port that the inside host needs next, and no home router does that.
func (h *Host) NAT(kind Kind, outside *Iface) {
	h.lab.t.Helper()
	if !kind.translates() {
		h.must("NAT", fmt.Errorf("%v is not a translation", kind))
	}
	n := &nat{kind: kind, outside: outside}
	h.nats = append(h.nats, n)
	h.installNAT(n)
}

// translates reports whether it is a NAT that one router does.
func (k Kind) translates() bool { return k >= FullCone && k <= Symmetric }

// Hairpin makes the host's NATs loop UDP from an inside host to another's outside address and port back inside, with
// the sender's outside address and port as its source and whatever the filter says (RFC 4787 §6). A NAT that is
// Symmetric has no port that others could know, so it changes nothing there. Mappings are forgotten.
func (h *Host) Hairpin() {
	h.lab.t.Helper()
	for _, n := range h.nats {
		n.hairpin = true
		h.installNAT(n)
	}
}

// Firewall refuses what comes in by the interface without having been asked for, as the firewall of a public host.
func (h *Host) Firewall(outside *Iface) {
	h.lab.t.Helper()
	c, table := h.newTable(nftables.TableFamilyINet)
	addFirewall(c, table, outside.name)
	h.must("firewall", c.Flush())
}

// UDPTimeout sets how long the host's connection tracking and NAT keep a UDP mapping that nothing leaves by, in whole
// seconds. Mappings are forgotten.
func (h *Host) UDPTimeout(d time.Duration) {
	h.lab.t.Helper()
	s := strconv.Itoa(int(d / time.Second))
	h.Sysctl("net/netfilter/nf_conntrack_udp_timeout", s)
	h.Sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", s)
	h.udpTimeout = d
	for _, n := range h.nats {
		h.installNAT(n)
	}
}

// ForgetFlows empties the host's connection tracking: every mapping of its NAT is gone, as after a restart. It forwards
// nothing meanwhile: a packet of an old flow would have its mapping remembered again.
func (h *Host) ForgetFlows() {
	h.lab.t.Helper()
	defer h.DropRule(Match{Hooks: Forward}).Remove()
	for _, n := range h.nats {
		c := h.nftables()
		for _, s := range n.sets {
			c.FlushSet(s)
		}
		h.must("forget mappings", c.Flush())
	}
	h.must("flush conntrack", h.links.ConntrackTableFlush(netlink.ConntrackTable))
}

// forgetOutside drops the mappings to an address that the interface has no more. Masquerading does so by itself, but
// remembered ports are translated by plain rules.
func (h *Host) forgetOutside(i *Iface) {
	h.lab.t.Helper()
	if slices.ContainsFunc(h.nats, func(n *nat) bool { return n.outside == i }) {
		h.ForgetFlows()
	}
}

// installNAT replaces the rules of a translation in one step, and forgets the flows that earlier rules decided about.
func (h *Host) installNAT(n *nat) {
	h.lab.t.Helper()
	c, firewall := h.newTable(nftables.TableFamilyINet)
	for _, old := range n.tables {
		c.DelTable(old)
	}
	addFirewall(c, firewall, n.outside.name)
	translation := h.addTable(c, nftables.TableFamilyIPv4)
	n.tables = []*nftables.Table{firewall, translation}
	timeout := h.udpTimeout
	if timeout == 0 {
		timeout = defaultUDPTimeout
	}
	r := &natRules{c: c, table: translation, nat: n, timeout: timeout}
	h.must("NAT", r.add())
	h.must("NAT", c.Flush())
	h.ForgetFlows()
}

// addFirewall drops what is unsolicited, except what a NAT has let in.
func addFirewall(c *nftables.Conn, table *nftables.Table, outside string) {
	const dstNAT = 1 << 5 // IPS_DST_NAT
	for name, hook := range map[string]*nftables.ChainHook{
		"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward,
	} {
		ch := c.AddChain(&nftables.Chain{
			Table: table, Name: name, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: slices.Concat(
			onIface(expr.MetaKeyIIFNAME, outside),
			onCtBits(expr.CtKeySTATE, expr.CtStateBitNEW|expr.CtStateBitINVALID, expr.CmpOpNeq),
			onCtBits(expr.CtKeySTATUS, dstNAT, expr.CmpOpEq),
			[]expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}},
		)})
	}
}

// newTable adds an empty firewall table to a batch of its own.
func (h *Host) newTable(family nftables.TableFamily) (*nftables.Conn, *nftables.Table) {
	h.lab.t.Helper()
	c := h.nftables()
	return c, h.addTable(c, family)
}

func (h *Host) addTable(c *nftables.Conn, family nftables.TableFamily) *nftables.Table {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tables++
	return c.AddTable(&nftables.Table{Family: family, Name: "netlab" + strconv.Itoa(h.tables)})
}

func (h *Host) nftables() *nftables.Conn {
	h.lab.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(int(h.ns)))
	h.must("open nftables", err)
	return c
}

func onIface(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: paddedName(name)},
	}
}

// paddedName is an interface's name as the kernel compares it.
func paddedName(name string) []byte {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return padded
}

// onCtBits matches packets whose flow has one of the bits (with CmpOpNeq) or none of them (with CmpOpEq).
//
// Packets of no known flow are new or invalid. Neighbour discovery is untracked, so it is neither.
func onCtBits(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	zero := make([]byte, 4)
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: zero,
		},
		&expr.Cmp{Op: op, Register: 1, Data: zero},
	}
}
