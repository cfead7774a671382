package lists

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"
)

const (
	perRound    = 64                     // addresses that are handed out in a round
	perTarget   = 8                      // of them of one name
	perSecond   = 20                     // addresses in any second
	otherDelay  = 250 * time.Millisecond // between a name's addresses: RFC 8305 §5
	staticLimit = 48                     // of a round that entries of the user take while there are other sources
)

// item is an address on its way to Config.Found.
type item struct {
	addr netip.AddrPort
	kind kind
	due  time.Time
}

// pool says who of a source's addresses is next: those that had the fewest turns, in the order they are offered in.
// Owned by a loop.
type pool struct {
	share int // addresses of a round
	left  int // of this round's share
	turns map[netip.AddrPort]int
	base  int // the turns of a new address: as few as any had as the round began, so that new ones do not starve old ones
}

// begin starts a round over what there is now. The rest is forgotten.
func (p *pool) begin(targets []*target) {
	p.left = p.share
	turns := make(map[netip.AddrPort]int)
	least := math.MaxInt
	for _, t := range targets {
		for _, a := range t.addrs {
			if n, ok := p.turns[a]; ok {
				turns[a] = n
				least = min(least, n)
			}
		}
	}
	if len(turns) == 0 {
		least = 0
	}
	p.turns, p.base = turns, least
	for _, t := range targets {
		for _, a := range t.addrs {
			p.turn(a)
		}
	}
}

// turn is how many turns an address had, which is noted.
func (p *pool) turn(a netip.AddrPort) int {
	n, ok := p.turns[a]
	if !ok {
		n = p.base
		p.turns[a] = n
	}
	return n
}

// draw chooses from what targets have fit those that are handed out now, at most 8 of a target in a round. asked are
// those of this round so far, of all sources.
func (p *pool) draw(now time.Time, targets []*target, asked map[netip.AddrPort]bool) []item {
	type offer struct {
		*target
		addr netip.AddrPort
		turn int
	}
	var all []offer
	for _, t := range targets {
		var own []offer
		for _, a := range t.fit {
			if turn := p.turn(a); !asked[a] {
				own = append(own, offer{t, a, turn})
			}
		}
		slices.SortStableFunc(own, func(x, y offer) int { return cmp.Compare(x.turn, y.turn) })
		all = append(all, own[:min(len(own), max(perTarget-t.given, 0))]...)
	}
	slices.SortStableFunc(all, func(x, y offer) int { return cmp.Compare(x.turn, y.turn) })
	var items []item
	for _, o := range all {
		if p.left == 0 {
			break
		}
		if asked[o.addr] {
			continue
		}
		asked[o.addr] = true
		p.left--
		p.turns[o.addr] = o.turn + 1
		items = append(items, item{addr: o.addr, kind: o.kind, due: now.Add(time.Duration(o.given) * otherDelay)})
		o.given++
		if o.IsLiteral() {
			o.tried, o.ok = now, now
		}
	}
	return items
}

// shares divides a round among the sources there are. Each of the user's entries gets what it can use, within limits;
// the others share the rest. What a source leaves over is nobody's: it is not known when its names are looked up.
func shares(static []*target, file, list bool) (ofStatic, ofFile, ofList int) {
	for _, t := range static {
		if t.IsLiteral() {
			ofStatic++
		} else {
			ofStatic += perTarget
		}
	}
	limit := staticLimit
	if !file && !list {
		limit = perRound
	}
	ofStatic = min(ofStatic, limit)
	rest := perRound - ofStatic
	switch {
	case file && list:
		return ofStatic, rest / 2, rest - rest/2
	case file:
		return ofStatic, rest, 0
	case list:
		return ofStatic, 0, rest
	}
	return ofStatic, 0, 0
}

// pacer keeps to 20 addresses in any second. Owned by a loop.
type pacer struct {
	last [perSecond]time.Time // when the last ones went, a ring
	at   int
}

// next is when another one may go.
func (p *pacer) next() time.Time {
	if p.last[p.at].IsZero() {
		return time.Time{}
	}
	return p.last[p.at].Add(time.Second)
}

// take notes that one goes.
func (p *pacer) take(now time.Time) {
	p.last[p.at] = now
	p.at = (p.at + 1) % len(p.last)
}
