package netlab

import (
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The 32-bit registers of a rule. Neighbours make one key or value: address, then port.
const (
	regA = 8 + iota // NFT_REG32_00
	regB
	regC
	regD
)

// maxMappings is how many entries a router remembers of each sort. What comes on top works as PortRestricted does.
const maxMappings = 1 << 13

// hairpinMark is the connection mark of a flow that is looped back inside.
const hairpinMark = 1

// natRules builds the rules of one translation:
//
//	prerouting   a packet to a remembered port goes to its owner, if the filter lets it
//	postrouting  a packet from an owner gets its remembered port; from others, a free one
//	then         what leaves is remembered, whichever port it got, and whom it was sent to
//
// The first two are asked about the first packet of a flow only, the last about every packet, so that a mapping lives
// as long as something leaves by it.
type natRules struct {
	c       *nftables.Conn
	table   *nftables.Table
	nat     *nat
	timeout time.Duration

	ports   *nftables.Set // inside address and port → outside address and port
	owners  *nftables.Set // outside port → inside address and port
	allowed *nftables.Set // outside port and who may send to it
}

func (r *natRules) add() error {
	post := r.chain("translate", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	leaves := onIface(expr.MetaKeyOIFNAME, r.nat.outside.name)
	if r.nat.kind == Symmetric {
		r.rule(post, leaves, []expr.Any{&expr.Masq{FullyRandom: true}})
		return nil
	}
	if err := r.addSets(); err != nil {
		return err
	}
	r.addMapping(post, leaves)
	r.addFiltering()
	r.addMemory(leaves)
	if r.nat.hairpin {
		r.addHairpin(post)
	}
	return nil
}

func (r *natRules) addSets() error {
	endpoint, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	if err != nil {
		return err
	}
	sender, err := nftables.ConcatSetType(nftables.TypeInetService, nftables.TypeIPAddr)
	if err != nil {
		return err
	}
	r.ports = &nftables.Set{Name: "ports", IsMap: true, KeyType: endpoint, DataType: endpoint}
	r.owners = &nftables.Set{Name: "owners", IsMap: true, KeyType: nftables.TypeInetService, DataType: endpoint}
	r.allowed = &nftables.Set{Name: "allowed", KeyType: sender}
	r.nat.sets = []*nftables.Set{r.ports, r.owners, r.allowed}
	for i, s := range r.nat.sets {
		// The library draws numbers from a variable that all goroutines share; they have to differ in one batch only.
		s.ID = uint32(i + 1)
		s.Table, s.Size, s.Dynamic, s.HasTimeout, s.Timeout = r.table, maxMappings, true, true, r.timeout
		if err := r.c.AddSet(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// addMapping gives every inside address and port one outside port.
func (r *natRules) addMapping(post *nftables.Chain, leaves []expr.Any) {
	r.rule(post, leaves, onUDP(), loadSource(regA, regB), lookup(r.ports, regA, regC), []expr.Any{
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regC, RegProtoMin: regD},
	})
	taken := slices.Concat(onUDP(), []expr.Any{sourcePort(regA)}, lookup(r.owners, regA, regC))
	r.rule(post, leaves, taken, []expr.Any{&expr.Masq{FullyRandom: true}})
	r.rule(post, leaves, []expr.Any{&expr.Masq{}})
}

// addFiltering lets in what comes to a remembered port. Answers from where a packet was sent to belong to a known
// flow and need no rule, which is all there is to PortRestricted.
func (r *natRules) addFiltering() {
	pre := r.chain("admit", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	comes := slices.Concat(onIface(expr.MetaKeyIIFNAME, r.nat.outside.name), onUDP())
	toOwner := slices.Concat([]expr.Any{destPort(regA)}, lookup(r.owners, regA, regC), []expr.Any{
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regC, RegProtoMin: regD},
	})
	switch r.nat.kind {
	case FullCone:
		r.rule(pre, comes, toOwner)
	case AddressRestricted:
		r.rule(pre, comes, []expr.Any{destPort(regA), sourceAddr(regB)}, lookup(r.allowed, regA, 0), toOwner)
	}
	if !r.nat.hairpin {
		return
	}
	fromInside := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: paddedName(r.nat.outside.name)},
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
	mark := []expr.Any{
		&expr.Immediate{Register: regA, Data: binaryutil.NativeEndian.PutUint32(hairpinMark)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: regA, SourceRegister: true},
	}
	known := slices.Concat([]expr.Any{destPort(regA)}, lookup(r.owners, regA, regC))
	r.rule(pre, fromInside, onUDP(), known, mark, toOwner)
}

// addHairpin gives a looped packet the source that its receiver would see from outside.
func (r *natRules) addHairpin(post *nftables.Chain) {
	marked := slices.Concat(onUDP(), []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(hairpinMark)},
	})
	r.rule(post, marked, loadSource(regA, regB), lookup(r.ports, regA, regC), []expr.Any{
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regC, RegProtoMin: regD},
	})
	toOutside := &expr.Ct{Key: expr.CtKeyDST, Register: regC, Direction: original}
	r.rule(post, marked, []expr.Any{sourcePort(regA)}, lookup(r.owners, regA, regC), []expr.Any{
		toOutside,
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regC, FullyRandom: true},
	})
	r.rule(post, marked, []expr.Any{
		toOutside, &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regC},
	})
	r.remember(r.memory(), slices.Concat(marked, onDirection(original)), original)
}

// addMemory notes what leaves. The packet shows its outside source by then; its inside source is known to the flow,
// as the source of the direction that the packet goes.
func (r *natRules) addMemory(leaves []expr.Any) {
	ch := r.memory()
	for _, direction := range []uint32{original, reply} {
		r.remember(ch, slices.Concat(leaves, onUDP(), onDirection(direction)), direction)
	}
	r.rule(ch, leaves, onUDP(), []expr.Any{
		sourcePort(regA), destAddr(regB), &expr.Dynset{
			SrcRegKey: regA, SetName: r.allowed.Name, SetID: r.allowed.ID, Operation: unix.NFT_DYNSET_OP_UPDATE,
		},
	})
}

func (r *natRules) remember(ch *nftables.Chain, match []expr.Any, direction uint32) {
	r.rule(ch, match, []expr.Any{
		&expr.Ct{Key: expr.CtKeySRC, Register: regA, Direction: direction},
		&expr.Ct{Key: expr.CtKeyPROTOSRC, Register: regB, Direction: direction},
	}, loadSource(regC, regD), []expr.Any{
		&expr.Dynset{
			SrcRegKey: regA, SrcRegData: regC, SetName: r.ports.Name, SetID: r.ports.ID,
			Operation: unix.NFT_DYNSET_OP_UPDATE,
		},
		&expr.Dynset{
			SrcRegKey: regD, SrcRegData: regA, SetName: r.owners.Name, SetID: r.owners.ID,
			Operation: unix.NFT_DYNSET_OP_UPDATE,
		},
	})
}

// memory is the chain behind the translation; asking for it twice is no error.
func (r *natRules) memory() *nftables.Chain {
	return r.chain("remember", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource+1)
}

func (r *natRules) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, at nftables.ChainPriority) *nftables.Chain {
	return r.c.AddChain(&nftables.Chain{
		Table: r.table, Name: name, Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(at),
	})
}

func (r *natRules) rule(ch *nftables.Chain, parts ...[]expr.Any) {
	r.c.AddRule(&nftables.Rule{Table: r.table, Chain: ch, Exprs: slices.Concat(parts...)})
}

// The directions of a flow.
const (
	original = iota // IP_CT_DIR_ORIGINAL
	reply           // IP_CT_DIR_REPLY
)

func onDirection(direction uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(direction)}},
	}
}

func onUDP() []expr.Any { return onProto(unix.IPPROTO_UDP) }

// lookup ends the rule unless the set has the key. A map's value goes to the register to; a set has none, with 0.
func lookup(set *nftables.Set, key, to uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: key, DestRegister: to, IsDestRegSet: set.IsMap, SetName: set.Name, SetID: set.ID,
	}}
}

func loadSource(addr, port uint32) []expr.Any { return []expr.Any{sourceAddr(addr), sourcePort(port)} }

func sourceAddr(reg uint32) expr.Any { return header(expr.PayloadBaseNetworkHeader, 12, 4, reg) }
func destAddr(reg uint32) expr.Any   { return header(expr.PayloadBaseNetworkHeader, 16, 4, reg) }
func sourcePort(reg uint32) expr.Any { return header(expr.PayloadBaseTransportHeader, 0, 2, reg) }
func destPort(reg uint32) expr.Any   { return header(expr.PayloadBaseTransportHeader, 2, 2, reg) }

func header(base expr.PayloadBase, offset, size, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: size}
}
