package netlab

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Hook is a set of places where a host's packets are looked at.
type Hook uint8

// The hooks. Input is the one for "lost on the way": the sender notices nothing, while a packet dropped in Output
// fails the sender's system call (EPERM), as a local firewall does.
const (
	Input Hook = 1 << iota
	Output
	Forward
)

// Match says which packets a drop rule takes. Zero fields match everything.
type Match struct {
	Hooks   Hook   // default Input
	Iface   string // comes in by (Input, Forward) or leaves by (Output) this interface
	Src     netip.Addr
	Dst     netip.Addr
	Proto   uint8  // an IP protocol: unix.IPPROTO_UDP, …
	SrcPort uint16 // with Proto UDP or TCP
	DstPort uint16
	Payload []byte // of a UDP datagram: these bytes, at most 16,
	Offset  int    // at this offset of the payload
	First   uint32 // only that many matching packets, at each hook; 0 means all
}

// Drop is an installed drop rule.
type Drop struct {
	host   *Host
	table  *nftables.Table
	chains []*nftables.Chain
	final  uint64 // the count when it was removed
	gone   bool
}

// DropRule drops the packets that match until it is removed. A batch of datagrams that one system call sends in
// segments (UDP_SEGMENT) passes every hook as a single packet, and is matched by the bytes of the first.
func (h *Host) DropRule(m Match) *Drop {
	h.lab.t.Helper()
	if err := m.check(); err != nil {
		h.must("drop rule", err)
	}
	if m.Hooks == 0 {
		m.Hooks = Input
	}
	c, table := h.newTable(nftables.TableFamilyINet)
	d := &Drop{host: h, table: table}
	for _, k := range []struct {
		hook Hook
		at   *nftables.ChainHook
		name string
	}{
		{Input, nftables.ChainHookInput, "input"},
		{Output, nftables.ChainHookOutput, "output"},
		{Forward, nftables.ChainHookForward, "forward"},
	} {
		if m.Hooks&k.hook == 0 {
			continue
		}
		// Before other rules, so that the first packets are counted whatever else would become of them.
		ch := c.AddChain(&nftables.Chain{
			Table: table, Name: k.name, Type: nftables.ChainTypeFilter,
			Hooknum: k.at, Priority: nftables.ChainPriorityRef(-10),
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: m.exprs(k.hook)})
		d.chains = append(d.chains, ch)
	}
	h.must("drop rule", c.Flush())
	return d
}

// BlockUDP drops all UDP that the host sends, receives or forwards.
func (h *Host) BlockUDP() *Drop {
	h.lab.t.Helper()
	return h.DropRule(Match{Hooks: Input | Output | Forward, Proto: unix.IPPROTO_UDP})
}

// Remove lets packets pass again. It may be called twice.
func (d *Drop) Remove() {
	d.host.lab.t.Helper()
	if d.gone {
		return
	}
	d.final, d.gone = d.Count(), true
	c := d.host.nftables()
	c.DelTable(d.table)
	d.host.must("remove drop rule", c.Flush())
}

// Count is the number of packets dropped so far, or until it was removed.
func (d *Drop) Count() uint64 {
	d.host.lab.t.Helper()
	if d.gone {
		return d.final
	}
	c := d.host.nftables()
	var n uint64
	for _, ch := range d.chains {
		rules, err := c.GetRules(d.table, ch)
		d.host.must("read drop rule", err)
		for _, r := range rules {
			n += counted(r)
		}
	}
	return n
}

func counted(r *nftables.Rule) (n uint64) {
	for _, e := range r.Exprs {
		if c, ok := e.(*expr.Counter); ok {
			n += c.Packets
		}
	}
	return n
}

func (m *Match) check() error {
	ports := m.SrcPort != 0 || m.DstPort != 0
	switch {
	case ports && m.Proto != unix.IPPROTO_UDP && m.Proto != unix.IPPROTO_TCP:
		return fmt.Errorf("ports need Proto UDP or TCP")
	case len(m.Payload) > 0 && m.Proto != unix.IPPROTO_UDP:
		return fmt.Errorf("payload needs Proto UDP")
	case len(m.Payload) > 16:
		return fmt.Errorf("payload of %d bytes, at most 16", len(m.Payload))
	}
	return nil
}

func (m *Match) exprs(hook Hook) []expr.Any {
	var es []expr.Any
	if m.Iface != "" {
		key := expr.MetaKeyIIFNAME
		if hook == Output {
			key = expr.MetaKeyOIFNAME
		}
		es = append(es, onIface(key, m.Iface)...)
	}
	if m.Src.IsValid() {
		es = append(es, onAddr(m.Src, 12, 8)...)
	}
	if m.Dst.IsValid() {
		es = append(es, onAddr(m.Dst, 16, 24)...)
	}
	if m.Proto != 0 {
		es = append(es, onProto(m.Proto)...)
	}
	if m.SrcPort != 0 {
		es = append(es, onTransport(0, binaryutil.BigEndian.PutUint16(m.SrcPort))...)
	}
	if m.DstPort != 0 {
		es = append(es, onTransport(2, binaryutil.BigEndian.PutUint16(m.DstPort))...)
	}
	if len(m.Payload) > 0 {
		const udpHeader = 8
		es = append(es, onTransport(udpHeader+m.Offset, m.Payload)...)
	}
	if m.First > 0 {
		es = append(es, firstPackets(m.First)...)
	}
	return append(es, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

// onAddr matches an address, which begins at one offset of an IPv4 header and at another of an IPv6 header.
func onAddr(a netip.Addr, offset4, offset6 uint32) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), offset4
	if a.Is6() {
		family, offset = unix.NFPROTO_IPV6, offset6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		header(expr.PayloadBaseNetworkHeader, offset, uint32(a.BitLen()/8), 1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

func onProto(proto uint8) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

func onTransport(offset int, want []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{
			DestRegister: 1, Base: expr.PayloadBaseTransportHeader,
			Offset: uint32(offset), Len: uint32(len(want)),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want},
	}
}

// firstPackets matches n times: an incremental number generator starts at 0 and would wrap after 2³² packets. The
// kernel's quota counts bytes and its limit refills, so neither can say "the first n".
func firstPackets(n uint32) []expr.Any {
	return []expr.Any{
		&expr.Numgen{Register: 1, Type: unix.NFT_NG_INCREMENTAL, Modulus: math.MaxUint32},
		// Comparison is byte by byte, so the number has to be in network order.
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(n)},
	}
}
