package discovery

import (
	"net/netip"
	"slices"
	"time"
)

// Socket is one of the two that questions are asked by.
type Socket uint8

// The sockets.
const (
	// MainSocket is the node's own: what is found out about it is what others may be told.
	MainSocket Socket = iota
	// SecondSocket is a temporary one that has talked to nobody yet, so that no filter is open for it.
	SecondSocket
)

// Packet is a datagram to send.
type Packet struct {
	By   Socket
	To   netip.AddrPort
	Data []byte
}

// Verdict is what became of a STUN message that came in.
type Verdict uint8

// The verdicts.
const (
	Taken     Verdict = iota // it answers a question
	Unknown                  // of no question of ours
	Spoofed                  // of a question, but from an address that was not asked
	Malformed                // of a question, but not to be understood
	Late                     // of a question that has ended, or was answered before
)

// The times after a question's start when it is sent. A server has 3 s in all: a busy link may need the later ones.
var (
	serverTries = []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond}
	testTries   = []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond}
)

const (
	serverWait  = 3 * time.Second
	testWait    = 1500 * time.Millisecond
	hairpinWait = time.Second
)

// ask is one question, sent until it is answered or its time is over.
type ask struct {
	by     Socket
	to     netip.AddrPort
	from   netip.AddrPort // where the answer has to come from; zero for a packet to ourselves
	change uint32
	tries  []time.Duration
	start  time.Time
	end    time.Time

	sent    int
	over    bool          // answered, or not in time
	reply   stunReply     // valid when took > 0
	took    time.Duration // from the try that was answered to its answer
	ignored bool          // the server answered as if nothing special had been asked
}

// answered reports whether the right answer came.
func (a *ask) answered() bool { return a.took > 0 }

// waiting reports whether the answer may still come.
func (a *ask) waiting() bool { return a != nil && !a.over }

// failed reports whether there was time enough for an answer, and none came.
func (a *ask) failed() bool { return a != nil && a.over && !a.answered() && !a.ignored }

// try is one sending of a question. Each is a transaction of its own, so that an answer tells how long it took.
type try struct {
	ask *ask
	at  time.Time
}

// asks are the questions of one round. Owned by a Behaviour.
type asks struct {
	all   []*ask
	tries map[txID]try
}

// add asks a question from now on.
func (s *asks) add(now time.Time, wait time.Duration, a ask) *ask {
	a.start, a.end = now, now.Add(wait)
	if s.tries == nil {
		s.tries = make(map[txID]try)
	}
	s.all = append(s.all, &a)
	return &a
}

// due are the packets to send by now. Questions whose time is over end.
func (s *asks) due(now time.Time) []Packet {
	var out []Packet
	for _, a := range s.all {
		switch {
		case a.over:
		case !now.Before(a.end):
			a.over = true
		case a.sent < len(a.tries) && !now.Before(a.start.Add(a.tries[a.sent])):
			a.sent++
			id := newTxID()
			s.tries[id] = try{a, now}
			out = append(out, Packet{By: a.by, To: a.to, Data: bindingRequest(id, a.change)})
		}
	}
	return out
}

// next is when due has something to do again; zero when all questions have ended.
func (s *asks) next() time.Time {
	var first time.Time
	for _, a := range s.all {
		if a.over {
			continue
		}
		at := a.end
		if a.sent < len(a.tries) {
			at = a.start.Add(a.tries[a.sent])
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// handle takes a STUN message that came in by a socket.
func (s *asks) handle(now time.Time, by Socket, from netip.AddrPort, pkt []byte) Verdict {
	id, request, ok := stunID(pkt)
	if !ok {
		return Malformed
	}
	t, ok := s.tries[id]
	a := t.ask
	switch {
	case !ok:
		return Unknown
	case request != !a.from.IsValid():
		return Spoofed
	case request:
		return a.returned(now.Sub(t.at), by)
	case by != a.by || from != a.from && from != a.to:
		return Spoofed
	case a.over:
		return Late
	}
	reply, err := parseReply(pkt)
	if err != nil || reply.mapped.IsValid() && reply.mapped.Addr().Is4() != a.to.Addr().Is4() {
		return Malformed
	}
	a.over, a.reply = true, reply
	if from != a.from || reply.code != 0 && a.change != 0 {
		a.ignored = true
		return Taken
	}
	a.took = max(now.Sub(t.at), 1)
	return Taken
}

// returned is for a packet to ourselves, which is only seen at our other socket.
func (a *ask) returned(took time.Duration, by Socket) Verdict {
	switch {
	case by == a.by:
		return Spoofed
	case a.over:
		return Late
	}
	a.over, a.took = true, max(took, 1)
	return Taken
}

// contacted reports whether a socket has sent anything to an address, and to its port unless that is 0.
func (s *asks) contacted(by Socket, ip netip.Addr, port uint16) bool {
	return slices.ContainsFunc(s.all, func(a *ask) bool {
		return a.by == by && a.to.Addr() == ip && (port == 0 || a.to.Port() == port)
	})
}
