package linux

import (
	"bytes"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// verdict is what a ruleset certainly does with a packet.
type verdict int

const (
	undecided verdict = iota // no rule applies: on to the next, at last the chain's policy
	accepted
	dropped
	unknown // a rule that cannot be judged may accept it
)

// packet is a first packet of a flow, as much of it as rules are judged by.
type packet struct {
	link      string // it arrives by
	linkIndex uint32
	protocol  byte   // of layer 4
	port      uint16 // destination
}

// chain and set are what a ruleset consists of.
type chain struct {
	base  bool // hooked to input
	drops bool // by policy
	rules []*nftables.Rule
}

type set struct {
	intervals, concatenated bool
	elements                []nftables.SetElement
}

// ruleset is one table. Immutable.
type ruleset struct {
	chains map[string]chain
	sets   map[string]set
}

// maxJumps is how deep the kernel lets chains call each other.
const maxJumps = 16

// drops reports whether the table certainly drops p. Any base chain may; what it cannot judge it does not blame.
func (r *ruleset) drops(p packet) bool {
	for _, c := range r.chains {
		if !c.base {
			continue
		}
		v := r.chain(c, p, 0)
		if v == dropped || v == undecided && c.drops {
			return true
		}
	}
	return false
}

func (r *ruleset) chain(c chain, p packet, depth int) verdict {
	if depth > maxJumps {
		return unknown
	}
	for _, rule := range c.rules {
		v, leave := r.rule(rule.Exprs, p, depth)
		if v != undecided || leave {
			return v
		}
	}
	return undecided
}

// rule judges one rule; leave tells that the chain ends here without a verdict.
func (r *ruleset) rule(exprs []expr.Any, p packet, depth int) (v verdict, leave bool) {
	e := evaluation{packet: p, sets: r.sets, registers: map[uint32][]byte{}}
	for _, x := range exprs {
		switch x := x.(type) {
		case *expr.Verdict:
			return r.act(x, &e, depth)
		case *expr.Reject:
			if e.unsure {
				return undecided, false
			}
			return dropped, false
		default:
			if !e.step(x) {
				return undecided, false
			}
		}
	}
	if e.verdictMap {
		return unknown, false
	}
	return undecided, false
}

// act applies a rule's verdict. A rule that only may match never drops, and may accept.
func (r *ruleset) act(x *expr.Verdict, e *evaluation, depth int) (verdict, bool) {
	switch x.Kind {
	case expr.VerdictAccept, expr.VerdictQueue:
		if e.unsure || x.Kind == expr.VerdictQueue {
			return unknown, false
		}
		return accepted, false
	case expr.VerdictDrop:
		if e.unsure {
			return undecided, false
		}
		return dropped, false
	case expr.VerdictJump, expr.VerdictGoto:
		v := r.chain(r.chains[x.Chain], e.packet, depth+1)
		if e.unsure && v == accepted {
			v = unknown
		}
		if e.unsure && v == dropped {
			v = undecided
		}
		return v, x.Kind == expr.VerdictGoto && !e.unsure
	case expr.VerdictReturn:
		return undecided, !e.unsure
	}
	return undecided, false
}

// evaluation runs one rule's expressions. A register that is absent holds something unknown.
type evaluation struct {
	packet     packet
	sets       map[string]set
	registers  map[uint32][]byte
	unsure     bool // an expression could not be judged: the rule may match
	verdictMap bool // the verdict comes from a map with the key in it
}

// step reports whether the rule may still match.
func (e *evaluation) step(x expr.Any) bool {
	switch x := x.(type) {
	case *expr.Meta:
		e.load(x.Register, e.meta(x.Key))
	case *expr.Ct:
		e.load(x.Register, ctState(x.Key))
	case *expr.Payload:
		e.load(x.DestRegister, e.payload(x))
	case *expr.Bitwise:
		e.load(x.DestRegister, bitwise(e.registers[x.SourceRegister], x))
	case *expr.Cmp:
		return e.compare(x)
	case *expr.Range:
		return e.inRange(x)
	case *expr.Lookup:
		return e.lookup(x)
	case *expr.Counter, *expr.Log:
	default: // limits, extensions of iptables and what is yet to come
		e.unsure = true
	}
	return true
}

func (e *evaluation) load(register uint32, value []byte) {
	if value == nil {
		delete(e.registers, register)
		return
	}
	e.registers[register] = value
}

func bitwise(value []byte, x *expr.Bitwise) []byte {
	if len(value) < len(x.Mask) || len(x.Mask) != len(x.Xor) {
		return nil
	}
	out := make([]byte, len(x.Mask))
	for i := range out {
		out[i] = value[i]&x.Mask[i] ^ x.Xor[i]
	}
	return out
}

func (e *evaluation) compare(x *expr.Cmp) bool {
	value, ok := e.registers[x.Register]
	if !ok || len(value) < len(x.Data) {
		e.unsure = true
		return true
	}
	c := bytes.Compare(value[:len(x.Data)], x.Data)
	switch x.Op {
	case expr.CmpOpEq:
		return c == 0
	case expr.CmpOpNeq:
		return c != 0
	case expr.CmpOpLt:
		return c < 0
	case expr.CmpOpLte:
		return c <= 0
	case expr.CmpOpGt:
		return c > 0
	case expr.CmpOpGte:
		return c >= 0
	}
	e.unsure = true
	return true
}

func (e *evaluation) inRange(x *expr.Range) bool {
	value, ok := e.registers[x.Register]
	if !ok || len(value) != len(x.FromData) || len(value) != len(x.ToData) {
		e.unsure = true
		return true
	}
	in := bytes.Compare(value, x.FromData) >= 0 && bytes.Compare(value, x.ToData) <= 0
	return in == (x.Op == expr.CmpOpEq)
}

func (e *evaluation) lookup(x *expr.Lookup) bool {
	value, known := e.registers[x.SourceRegister]
	s, ok := e.sets[x.SetName]
	if !known || !ok || s.concatenated {
		e.unsure, e.verdictMap = true, e.verdictMap || x.IsDestRegSet
		return true
	}
	found := s.contains(value)
	if x.IsDestRegSet {
		e.verdictMap = found
		return found
	}
	return found != x.Invert
}

func (s set) contains(value []byte) bool {
	same := func(key []byte) bool { return len(key) <= len(value) && bytes.Equal(key, value[:len(key)]) }
	if !s.intervals {
		return slices.ContainsFunc(s.elements, func(el nftables.SetElement) bool { return same(el.Key) })
	}
	// Each element begins an interval or the gap behind one; the last that is not above value decides.
	in, best := false, []byte(nil)
	for _, el := range s.elements {
		if bytes.Compare(el.Key, value) > 0 {
			continue
		}
		c := bytes.Compare(el.Key, best)
		if best == nil || c > 0 || c == 0 && !el.IntervalEnd {
			in, best = !el.IntervalEnd, el.Key
		}
	}
	return in
}
