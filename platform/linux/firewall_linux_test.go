package linux

import (
	"encoding/binary"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

func ctBits(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func established() []expr.Any { return ctBits(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED) }

func fromLink(name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Register: 1, Data: data}}
}

func fromLinks(prefix string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Register: 1, Data: []byte(prefix)}}
}

func protocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{p}}}
}

func destination2() expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

func toPort(proto byte, p uint16) []expr.Any {
	return append(protocol(proto), destination2(), &expr.Cmp{Register: 1, Data: port(p)})
}

func toPortOf(s *nftables.Set) []expr.Any {
	return append(protocol(unix.IPPROTO_UDP), destination2(), &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID})
}

func fromAddress() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Cmp{Register: 1, Data: []byte{192, 168, 1, 1}},
	}
}

func then(kind expr.VerdictKind, exprs ...expr.Any) *nftables.Rule {
	return &nftables.Rule{Exprs: append(exprs, &expr.Verdict{Kind: kind})}
}

func call(kind expr.VerdictKind, chain string, exprs ...expr.Any) *nftables.Rule {
	return &nftables.Rule{Exprs: append(exprs, &expr.Verdict{Kind: kind, Chain: chain})}
}

func TestRulesetDrops(t *testing.T) {
	const accept, drop, jump, goTo, back = expr.VerdictAccept, expr.VerdictDrop, expr.VerdictJump, expr.VerdictGoto, expr.VerdictReturn
	udp := packet{link: "eth0", linkIndex: 7, protocol: unix.IPPROTO_UDP, port: 41820}
	limit := &expr.Limit{Rate: 5}
	lookup := func(set string, invert bool) []expr.Any {
		return []expr.Any{destination2(), &expr.Lookup{SourceRegister: 1, SetName: set, Invert: invert}}
	}
	vmap := func(set string) *nftables.Rule {
		return &nftables.Rule{Exprs: []expr.Any{
			&expr.Ct{Register: 1, Key: expr.CtKeySTATE}, &expr.Lookup{SourceRegister: 1, SetName: set, IsDestRegSet: true},
		}}
	}
	state := func(s uint32) nftables.SetElement {
		return nftables.SetElement{Key: binary.NativeEndian.AppendUint32(nil, s)}
	}
	sets := map[string]set{
		"other": {elements: []nftables.SetElement{{Key: port(22)}}},
		"ours":  {elements: []nftables.SetElement{{Key: port(22)}, {Key: port(41820)}}},
		"range": {intervals: true, elements: []nftables.SetElement{{Key: port(42000), IntervalEnd: true}, {Key: port(41000)}, {Key: port(0), IntervalEnd: true}}},
		"below": {intervals: true, elements: []nftables.SetElement{{Key: port(41820), IntervalEnd: true}, {Key: port(100)}}},
		"old":   {elements: []nftables.SetElement{state(expr.CtStateBitESTABLISHED)}},
		"new":   {elements: []nftables.SetElement{state(expr.CtStateBitNEW)}},
		"pairs": {concatenated: true},
	}
	for name, c := range map[string]struct {
		policyAccepts bool
		rules         []*nftables.Rule
		sub           []*nftables.Rule
		want          bool
	}{
		"policy drops":             {want: true},
		"policy accepts":           {policyAccepts: true},
		"established only":         {rules: []*nftables.Rule{then(accept, established()...)}, want: true},
		"new too":                  {rules: []*nftables.Rule{then(accept, ctBits(expr.CtStateBitNEW)...)}},
		"link":                     {rules: []*nftables.Rule{then(accept, fromLink("eth0")...)}},
		"another link":             {rules: []*nftables.Rule{then(accept, fromLink("eth01")...)}, want: true},
		"links":                    {rules: []*nftables.Rule{then(accept, fromLinks("eth")...)}},
		"port":                     {rules: []*nftables.Rule{then(accept, toPort(unix.IPPROTO_UDP, 41820)...)}},
		"port of another protocol": {rules: []*nftables.Rule{then(accept, toPort(unix.IPPROTO_TCP, 41820)...)}, want: true},
		"in a set":                 {rules: []*nftables.Rule{then(accept, lookup("ours", false)...)}},
		"not in a set":             {rules: []*nftables.Rule{then(accept, lookup("other", false)...)}, want: true},
		"all but a set":            {rules: []*nftables.Rule{then(accept, lookup("other", true)...)}},
		"in a range":               {rules: []*nftables.Rule{then(accept, lookup("range", false)...)}},
		"below a range's end":      {rules: []*nftables.Rule{then(accept, lookup("below", false)...)}, want: true},
		"a set beyond judging":     {rules: []*nftables.Rule{then(accept, lookup("pairs", false)...)}},
		"dropped by a rule":        {policyAccepts: true, rules: []*nftables.Rule{then(drop, fromLink("eth0")...)}, want: true},
		"rejected":                 {policyAccepts: true, rules: []*nftables.Rule{{Exprs: []expr.Any{&expr.Counter{}, &expr.Reject{}}}}, want: true},
		"perhaps dropped":          {policyAccepts: true, rules: []*nftables.Rule{then(drop, fromAddress()...)}},
		"perhaps accepted":         {rules: []*nftables.Rule{then(accept, fromAddress()...)}},
		"a limit, then drop":       {policyAccepts: true, rules: []*nftables.Rule{then(drop, limit)}},
		"map without new":          {rules: []*nftables.Rule{vmap("old")}, want: true},
		"map with new":             {rules: []*nftables.Rule{vmap("new")}},
		"jump accepts":             {rules: []*nftables.Rule{call(jump, "sub")}, sub: []*nftables.Rule{then(accept)}},
		"jump comes back":          {rules: []*nftables.Rule{call(jump, "sub"), then(accept)}, sub: []*nftables.Rule{then(back), then(drop)}},
		"goto does not":            {rules: []*nftables.Rule{call(goTo, "sub"), then(accept)}, want: true},
		"perhaps jumps to drop":    {policyAccepts: true, rules: []*nftables.Rule{call(jump, "sub", limit)}, sub: []*nftables.Rule{then(drop)}},
		"perhaps jumps to accept":  {rules: []*nftables.Rule{call(jump, "sub", limit)}, sub: []*nftables.Rule{then(accept)}},
		"chases its tail":          {rules: []*nftables.Rule{call(jump, "sub")}, sub: []*nftables.Rule{call(jump, "sub")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := ruleset{sets: sets, chains: map[string]chain{
				"input": {base: true, drops: !c.policyAccepts, rules: c.rules}, "sub": {rules: c.sub},
			}}
			if got := r.drops(udp); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
