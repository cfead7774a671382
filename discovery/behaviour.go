package discovery

import (
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/netmap"
)

// roundLimit ends a round whatever is still to be found out.
const roundLimit = 3500 * time.Millisecond

// fallbackAfter is how long a server that knows RFC 5780 is waited for, before the second socket asks a plain one.
const fallbackAfter = 500 * time.Millisecond

// Target is one address of a STUN server.
type Target struct {
	Server string // as it was given: "host:port"
	Addr   netip.AddrPort
}

// Round says what to find out.
type Round struct {
	Targets []Target
	Local   []netip.AddrPort // the main socket's addresses: which of them a server sees is not translated
	// Second: there is a second socket. Without it, filtering and hairpin stay unknown.
	Second bool
}

// Behaviour finds out in one round how the networks around the node treat its UDP: RFC 5780 without its state on the
// server, with whatever the servers at hand support.
//
//	every server ── mapped? ──┬─ OTHER-ADDRESS ─▶ main socket asks there too          ─▶ mapping   (§4.3)
//	                          └─▶ second socket asks, learns where it is mapped to
//	                               ├─ "answer from elsewhere" (CHANGE-REQUEST)         ─▶ filtering (§4.4)
//	                               └─ both sockets send to each other's mapped address ─▶ hairpin   (§4.5)
//
// It takes events and the time, and returns what to send. Owned by its caller.
type Behaviour struct {
	round   Round
	started time.Time
	end     time.Time
	asks    asks
	servers []*ask // of round.Targets, in that order
	mapping []*ask // to other addresses of the server under test
	base    *ask   // the second socket's own mapping
	under   *ask   // the server that base asks
	fromIP  *ask   // may another address answer the second socket?
	fromPrt *ask   // may another port of the same address?
	out, in *ask   // from the main socket to the second one's mapped address, and back
}

// NewBehaviour begins a round. Nothing is sent until Tick.
func NewBehaviour(now time.Time, r Round) *Behaviour {
	b := &Behaviour{round: r, started: now, end: now.Add(roundLimit)}
	for _, t := range r.Targets {
		b.servers = append(b.servers, b.asks.add(now, serverWait, ask{to: t.Addr, from: t.Addr, tries: serverTries}))
	}
	return b
}

// Handle takes a STUN message that came in by a socket. borrowed: pkt is only read during the call.
func (b *Behaviour) Handle(now time.Time, by Socket, from netip.AddrPort, pkt []byte) Verdict {
	return b.asks.handle(now, by, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), pkt)
}

// Tick returns what to send now. It is to be called at the start, at Next, and after each message that was Taken.
func (b *Behaviour) Tick(now time.Time) []Packet {
	if !now.Before(b.end) {
		for _, a := range b.asks.all {
			a.ignored = a.ignored || !a.over && now.Before(a.end) // cut short: no evidence
			a.over = true
		}
		return nil
	}
	out := b.asks.due(now)
	b.follow(now)
	return append(out, b.asks.due(now)...)
}

// Next is when Tick is to be called again; zero when the round is over.
func (b *Behaviour) Next() time.Time {
	next := b.asks.next()
	if next.IsZero() {
		return next
	}
	if b.round.Second && b.base == nil && b.first() != nil {
		if f := b.started.Add(fallbackAfter); f.Before(next) {
			next = f
		}
	}
	if b.end.Before(next) {
		next = b.end
	}
	return next
}

// follow asks what the answers so far allow to ask.
func (b *Behaviour) follow(now time.Time) {
	if b.under == nil || !b.twoAddresses(b.under) {
		b.choose(now)
	}
	if b.base == nil || !b.base.answered() || b.base.reply.code != 0 {
		return
	}
	if b.fromPrt == nil {
		b.testFiltering(now)
	}
	if b.out == nil {
		b.testHairpin(now)
	}
}

// choose picks the server under test: the first that knows RFC 5780, unless soon after it one answers that has a second
// address for it and not just a second port; or, for the second socket's mapping alone, the first that answers.
func (b *Behaviour) choose(now time.Time) {
	soon := now.Before(b.started.Add(fallbackAfter)) // there is time for all tests anew
	for _, two := range []bool{true, false} {
		for _, s := range b.servers {
			if !s.answered() || !b.testable(s) || two && !b.twoAddresses(s) {
				continue
			}
			if b.under == nil || two && soon || !b.testable(b.under) {
				b.test(now, s)
			}
			return
		}
	}
	allOver := true
	for _, s := range b.servers {
		allOver = allOver && s.over
	}
	if first := b.first(); b.base == nil && first != nil && (allOver || !now.Before(b.started.Add(fallbackAfter))) {
		b.under = first
		b.askBase(now)
	}
}

// first is the first server of the preferred family that has answered, or nil.
func (b *Behaviour) first() *ask {
	for _, s := range b.servers {
		if s.answered() && s.reply.code == 0 && s.to.Addr().Is4() == b.prefers4() {
			return s
		}
	}
	return nil
}

// prefers4 reports whether it is IPv4 that is tested in depth: where it is spoken, that is where NATs are.
func (b *Behaviour) prefers4() bool {
	some6 := false
	for _, s := range b.servers {
		if s.to.Addr().Is4() && (!s.over || s.answered()) {
			return true
		}
		some6 = some6 || !s.to.Addr().Is4() && s.answered()
	}
	return !some6
}

// testable reports whether a server's other address is of use, and of the same kind as its own: nobody is to be made
// to send packets into another network.
func (b *Behaviour) testable(s *ask) bool {
	own, other := s.to.Addr(), s.reply.other.Addr()
	return other.IsValid() && own.Is4() == other.Is4() && own.Is4() == b.prefers4() && scopeOf(own) == scopeOf(other) &&
		s.reply.other.Port() != s.to.Port()
}

// twoAddresses reports whether a server answers from another address, if asked to, and not just from another port.
func (b *Behaviour) twoAddresses(s *ask) bool {
	return b.testable(s) && s.reply.other.Addr() != s.to.Addr()
}

// test begins the tests with a server. What one before told of the filtering does not count any more.
func (b *Behaviour) test(now time.Time, s *ask) {
	b.under, b.fromIP, b.fromPrt = s, nil, nil
	b.testMapping(now)
	b.askBase(now)
}

// testMapping asks the server under test at its other addresses, by the main socket.
func (b *Behaviour) testMapping(now time.Time) {
	own, other := b.under.to, b.under.reply.other
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(other.Addr(), own.Port()), other} {
		if !b.asks.contacted(MainSocket, to.Addr(), to.Port()) {
			b.mapping = append(b.mapping, b.asks.add(now, testWait, ask{to: to, from: to, tries: testTries}))
		}
	}
}

func (b *Behaviour) askBase(now time.Time) {
	if b.round.Second {
		b.base = b.asks.add(now, testWait, ask{by: SecondSocket, to: b.under.to, from: b.under.to, tries: testTries})
	}
}

// testFiltering has the second socket answered from where it sent nothing to.
func (b *Behaviour) testFiltering(now time.Time) {
	own, other := b.under.to, b.under.reply.other
	if b.base.to != own || !b.testable(b.under) {
		return
	}
	if other.Addr() != own.Addr() && !b.asks.contacted(SecondSocket, other.Addr(), 0) {
		b.fromIP = b.asks.add(now, testWait, ask{
			by: SecondSocket, to: own, from: other, change: changeAddr | changePort, tries: testTries,
		})
	}
	if !b.asks.contacted(SecondSocket, own.Addr(), other.Port()) {
		b.fromPrt = b.asks.add(now, testWait, ask{
			by: SecondSocket, to: own, from: netip.AddrPortFrom(own.Addr(), other.Port()), change: changePort, tries: testTries,
		})
	}
}

// testHairpin sends between the sockets by way of their mapped addresses, both ways, as each way opens the filter for
// the other.
func (b *Behaviour) testHairpin(now time.Time) {
	main, second := b.under.reply.mapped, b.base.reply.mapped
	if b.untranslated(main) || main.Addr() != second.Addr() || main == second {
		return
	}
	b.out = b.asks.add(now, hairpinWait, ask{to: second, tries: testTries})
	b.in = b.asks.add(now, hairpinWait, ask{by: SecondSocket, to: main, tries: testTries})
}

// Report is what is known so far: all there is once Next is zero.
func (b *Behaviour) Report(now time.Time) Report {
	r := Report{At: now, Took: now.Sub(b.started)}
	for i, s := range b.servers {
		r.STUN = append(r.STUN, serverReport(b.round.Targets[i], s))
	}
	var seen4, seen6 []sighting
	for _, a := range slices.Concat(b.servers, b.mapping) {
		r.UDP = r.UDP || a.answered()
		if !a.answered() || a.reply.code != 0 {
			continue
		}
		s := sighting{a.to, a.reply.mapped, a.took}
		if a.to.Addr().Is4() {
			seen4 = append(seen4, s)
		} else {
			seen6 = append(seen6, s)
		}
	}
	seen4, seen6 = outermost(seen4, b.untranslated), outermost(seen6, b.untranslated)
	r.IPv4, r.IPv6 = quickest(seen4), quickest(seen6)
	r.Mapped = append(distinct(seen4), distinct(seen6)...)
	deep := seen4
	if len(seen4) == 0 {
		deep = seen6
	}
	r.Mapping, r.NAT = classify(deep, b.untranslated)
	if !r.UDP && len(b.servers) > 0 {
		r.NAT = netmap.NATBlocked
	}
	r.Filtering = b.filtering()
	if b.out != nil && !b.out.ignored && !b.in.ignored {
		found := b.out.answered() || b.in.answered()
		r.Hairpin = &found
	}
	return r
}

// filtering is RFC 5780 §4.4, as far as the server under test has a second address for it.
func (b *Behaviour) filtering() Filtering {
	switch {
	case b.fromIP != nil && b.fromIP.answered():
		return FilteringIndependent
	case b.fromPrt == nil || b.fromPrt.ignored || b.fromPrt.waiting():
		return ""
	case b.fromPrt.failed():
		return FilteringAddressAndPort
	case b.fromIP != nil && b.fromIP.failed():
		return FilteringAddress
	}
	return "" // the same address answers from another port; whether another address may is not known
}

func (b *Behaviour) untranslated(mapped netip.AddrPort) bool {
	for _, l := range b.round.Local {
		if l.Port() == mapped.Port() && l.Addr().Unmap().WithZone("") == mapped.Addr() {
			return true
		}
	}
	return false
}
