package magicsock

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/hop"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// MemberRelay is what a node does for members that do not reach each other.
type MemberRelay struct {
	Serve bool  // relay between members that ask
	Rate  int64 // bytes a second in all, 0: no limit; hop.DefaultRate is what programs offer by default
	// Consent decides who may have datagrams relayed to whom, beyond both being members; nil: everybody. It must not
	// block, nor call the Conn.
	Consent func(from, to identity.PeerID) bool
}

// serving is the relay in this node. The table guards itself where packets pass; core owns the rest.
type serving struct {
	on      atomic.Bool
	table   *hop.Table
	consent func(from, to identity.PeerID) bool
}

func newServing(cfg MemberRelay) *serving {
	s := &serving{consent: cfg.Consent}
	s.on.Store(cfg.Serve)
	s.table = hop.NewTable(hop.Config{Rate: cfg.Rate, Consent: s.consents})
	return s
}

func (s *serving) consents(from, to identity.PeerID) bool {
	return s.on.Load() && (s.consent == nil || s.consent(from, to))
}

// ServeRelay begins or ends to relay between members. What is open ends with it.
func (c *Conn) ServeRelay(on bool) {
	c.do(func(_ time.Time, core *core) {
		if core.serving.on.Swap(on) && !on {
			core.serving.table.CloseAll()
		}
	})
}

// RelayCounters are what was relayed between members.
func (c *Conn) RelayCounters() hop.Counters { return c.core.serving.table.Counters() }

// notReadyRetry is when a member may ask again for another that we have no path to at the moment.
const notReadyRetry = time.Second

// takeOpen answers a member that wants to be relayed, and tells the other one.
func (c *core) takeOpen(now time.Time, from *peer, s *disco.Signal) {
	answer := &disco.Signal{Kind: disco.RelayAnswer, TxID: disco.NewTxID(), Time: now.Add(c.skew), About: s.TxID}
	to := c.peer(now, s.Peer)
	var opened hop.Opened
	var err error
	switch {
	case !c.serving.on.Load():
		answer.Code = disco.CodeRefused
	case to == nil || !to.known:
		answer.Code = disco.CodeUnknownPeer
	case !to.answersDirectly():
		answer.Code, answer.Retry = disco.CodeNotNow, notReadyRetry
		c.probeAll(now, to)
		c.schedule(now, to)
	default:
		opened, err = c.serving.table.Open(now, from.id, to.id, hop.Nonce(s.Nonce))
		answer.SID = opened.SID
		answer.Code, answer.Retry = openCode(err)
	}
	c.signal(now, from, answer)
	if answer.Code == disco.CodeOK && opened.Offer {
		c.signal(now, to, &disco.Signal{
			Kind: disco.RelayOffer, TxID: disco.NewTxID(), Time: now.Add(c.skew),
			Peer: from.id, SID: opened.SID, Nonce: disco.Nonce(opened.Nonce),
		})
	}
}

func openCode(err error) (disco.Code, time.Duration) {
	switch {
	case err == nil:
		return disco.CodeOK, 0
	case errors.Is(err, hop.ErrFull):
		return disco.CodeFull, 0
	case errors.Is(err, hop.ErrBusy):
		return disco.CodeNotNow, 10 * time.Second
	}
	return disco.CodeRefused, 0
}

// refusedOffer ends a session that the member to which it was offered refuses.
func (c *core) refusedOffer(now time.Time, by *peer, s *disco.Signal) {
	if s.Code != disco.CodeOK {
		c.closeRelayed(now, by, s.SID)
	}
}

// closeRelayed ends a session for one of its members, and tells the other.
func (c *core) closeRelayed(now time.Time, by *peer, sid uint32) {
	id, ok := c.serving.table.Close(sid, by.id)
	if !ok {
		return
	}
	if other := c.peer(now, id); other != nil {
		c.signal(now, other, &disco.Signal{Kind: disco.RelayClose, TxID: disco.NewTxID(), Time: now.Add(c.skew), SID: sid})
	}
}

// isBind knows a packet that binds a session at a member that relays.
func isBind(pkt []byte) bool { return len(pkt) > 0 && pkt[0] == hop.FirstBind }

// handleBind takes a packet that binds a session: one of ours, or one that we relay.
func (c *core) handleBind(now time.Time, from line, pkt []byte) {
	if from.relay || from.sid != 0 {
		c.count.foreign.Add(1)
		return
	}
	if c.handleBound(now, from, pkt) {
		return
	}
	if !c.serving.on.Load() {
		c.count.foreign.Add(1)
		return
	}
	end := hop.End{Addr: from.addr, Local: from.local.Addr, IfIndex: from.local.IfIndex}
	if reply := c.serving.table.HandleBind(now, end, pkt); reply != nil {
		c.sends = append(c.sends, send{line: from, pkt: reply})
	}
}

// forward passes on a run of frames of one session of those that this node relays, as far as that may go on.
func (in *intake) forward(now time.Time, t *datagram.Train, sid uint32, run []byte) {
	to, n, verdict := in.conn.core.serving.table.Forward(now, t.From.Addr, sid, len(run), t.Size)
	if verdict != hop.Pass {
		in.hint(now, &t.From, sid, verdict)
		return
	}
	in.frames = in.frames[:0]
	for rest := run[:n]; len(rest) > 0; {
		size := min(t.Size, len(rest))
		in.frames = append(in.frames, rest[:size:size])
		rest = rest[size:]
	}
	out := line{way: way{addr: to.Addr}, local: udp.Source{Addr: to.Local, IfIndex: to.IfIndex, Ahead: t.Ahead}}
	if err := in.conn.write(out, in.frames); err != nil {
		in.conn.core.count.sendFail.Add(1)
	}
}

// hint tells the sender of frames why they go nowhere.
func (in *intake) hint(now time.Time, from *datagram.Source, sid uint32, v hop.Verdict) {
	if v != hop.Gone && v != hop.Unbound {
		return
	}
	back := lineOf(from)
	in.conn.doAt(now, func(core *core) {
		if pkt := core.serving.table.Hint(now, back.addr, sid, v); pkt != nil {
			core.sends = append(core.sends, send{line: back, pkt: pkt})
		}
	})
}
