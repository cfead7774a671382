package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control/join"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/netmap"
)

const (
	maxAttempts  = 4  // answerers that are followed at once
	maxFound     = 32 // found places that are asked at once; the newest take the place of the oldest
	attemptFor   = 10 * time.Second
	resolveFor   = 5 * time.Second
	resolveAgain = 30 * time.Second
	// wrongClock is how far off the host's clock must be for the mesh's to be taken instead.
	wrongClock = 10 * time.Minute
)

// Refusals of a join that are final.
var (
	ErrInviteExpired = errors.New("the invite has expired")
	ErrInviteUsed    = errors.New("the invite was used as often as it may be")
	ErrInviteRevoked = errors.New("the invite or this node was revoked")
)

// Datagram is a datagram of joining.
type Datagram struct {
	From datagram.Place
	Data []byte
}

// Entrance is what a joiner needs to get in.
type Entrance struct {
	Logger   *slog.Logger // nil discards
	Identity *identity.Identity
	Token    ledger.Token
	Store    *Store
	// Found brings places to ask beside the token's hints. nil: there are none.
	Found <-chan datagram.Place

	Resolve func(ctx context.Context, hostport string) ([]netip.AddrPort, error)
	// Send sends a datagram to an address, or by the relay servers that lead to a node. It must not block.
	Send func(to datagram.Place, pkt []byte)
	// UseRelay connects to the relay server of a hint, with the token's RelayPass, so that Send has a way to the hint's
	// node. It must not block. nil: there is no way by relay servers.
	UseRelay    func(url string)
	Packets     <-chan Datagram
	Provisional func(Provisional)
	Dial        func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Refused hears of refusals that are not final, and of answers that led nowhere.
	Refused func(reason string)
}

// entering is a join under way. Owned by Enter's goroutine.
type entering struct {
	Entrance
	asker    *join.Asker
	admit    *ledger.Admit
	attempts map[identity.PeerID]Provisional
	results  chan attempt
	final    map[identity.PeerID]bool // whose refusal is the last word
	hinted   map[datagram.Place]bool  // asked for as long as it takes
	found    []datagram.Place         // others that are asked, at most maxFound, the oldest first
}

// attempt is how following one answerer went.
type attempt struct {
	peer  Provisional
	entry *join.Entry
	skew  time.Duration
	err   error
}

// Enter asks every hint of the token at once, and whoever is found, until a member lets us in, then makes the store that
// of its network. It tries for ever, until ctx ends or a refusal is final.
func Enter(ctx context.Context, in Entrance) error {
	if in.Logger == nil {
		in.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	e := &entering{
		Entrance: in,
		admit:    ledger.NewAdmit(in.Identity, in.Token.Network, in.Token.InviteID(), in.Token.Seed),
		attempts: make(map[identity.PeerID]Provisional), results: make(chan attempt),
		final: map[identity.PeerID]bool{in.Token.Author(): true}, hinted: make(map[datagram.Place]bool),
	}
	content := join.Content{Admit: e.admit.Raw, Invite: in.Token.Invite.Marshal()}
	for _, g := range in.Token.Grants {
		content.Grants = append(content.Grants, g.Marshal())
	}
	e.asker = join.NewAsker(join.AskerConfig{
		Self: in.Identity, Network: in.Token.Network, ID: ledger.Short(in.Token.InviteID()), PSK: in.Token.PSK,
		Content: content,
	})
	if err := e.askRelays(); err != nil {
		return err
	}
	resolved := make(chan datagram.Place)
	for _, target := range e.targets() {
		wg.Go(func() { e.resolve(ctx, target, resolved) })
	}
	return e.loop(ctx, &wg, resolved)
}

// targets are the addresses of the token's hints. Whose refusal is final is noted.
func (e *entering) targets() []string {
	var all []string
	for _, h := range e.Token.Hints {
		e.final[h.Node] = true
		if !h.IsRelay() {
			all = append(all, h.Addr)
		}
	}
	return all
}

// askRelays asks the nodes that relay servers lead to.
func (e *entering) askRelays() error {
	for _, h := range e.Token.Hints {
		if e.UseRelay == nil || !ledger.ValidRelayURL(h.Addr) || h.Node.IsZero() {
			continue
		}
		e.UseRelay(h.Addr)
		if err := e.ask(datagram.Place{Relay: h.Node}); err != nil {
			return err
		}
	}
	return nil
}

// ask asks a place that the token leads to.
func (e *entering) ask(to datagram.Place) error {
	e.hinted[to] = true
	e.found = slices.DeleteFunc(e.found, func(p datagram.Place) bool { return p == to })
	return e.asker.Ask(time.Now(), to)
}

// askFound asks a place that was found, and leaves the one be that was found longest ago when there are too many.
func (e *entering) askFound(to datagram.Place) error {
	if e.hinted[to] || slices.Contains(e.found, to) {
		return nil
	}
	if len(e.found) == maxFound {
		e.asker.Forget(e.found[0])
		e.found = slices.Delete(e.found, 0, 1)
	}
	e.found = append(e.found, to)
	return e.asker.Ask(time.Now(), to)
}

// resolve finds the addresses of a name, and again from time to time: they may change.
func (e *entering) resolve(ctx context.Context, target string, resolved chan<- datagram.Place) {
	for {
		lookup, cancel := context.WithTimeout(ctx, resolveFor)
		addrs, err := e.Resolve(lookup, target)
		cancel()
		if err != nil && ctx.Err() == nil {
			e.Refused(err.Error())
		}
		for _, a := range addrs {
			select {
			case resolved <- datagram.Place{Addr: a}:
			case <-ctx.Done():
				return
			}
		}
		timer := time.NewTimer(resolveAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (e *entering) loop(ctx context.Context, wg *sync.WaitGroup, resolved <-chan datagram.Place) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			e.giveUp(identity.PeerID{})
			return ctx.Err()
		case p := <-resolved:
			if err := e.ask(p); err != nil {
				return err
			}
		case p := <-e.Found:
			if err := e.askFound(p); err != nil {
				return err
			}
		case p := <-e.Packets:
			if err := e.handle(ctx, wg, p); err != nil {
				e.giveUp(identity.PeerID{})
				return err
			}
		case r := <-e.results:
			if done, err := e.result(r); done {
				return err
			}
		case <-timer.C:
		}
		send, next := e.asker.Due(time.Now())
		for _, p := range send {
			e.Send(p.To, p.Data)
		}
		if next.IsZero() {
			timer.Reset(time.Hour)
		} else {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// handle takes a datagram: a cookie, a Welcome to follow, or a refusal.
func (e *entering) handle(ctx context.Context, wg *sync.WaitGroup, p Datagram) error {
	again, answer := e.asker.Handle(time.Now(), p.From, p.Data)
	if again != nil {
		e.Send(again.To, again.Data)
	}
	if answer == nil {
		return nil
	}
	if answer.Word != "" {
		return e.refused(answer)
	}
	if _, following := e.attempts[answer.Node]; following || len(e.attempts) >= maxAttempts {
		return nil
	}
	peer := Provisional{
		Node: answer.Node, WG: answer.WG, Place: answer.From, PSK: answer.PSK,
		Control: netmap.ControlAddr(e.Token.Network, answer.Node),
	}
	e.attempts[answer.Node] = peer
	e.Provisional(peer)
	skew := time.Until(answer.Time)
	wg.Go(func() {
		entry, err := e.follow(ctx, peer)
		select {
		case e.results <- attempt{peer, entry, skew, err}:
		case <-ctx.Done():
		}
	})
	return nil
}

// refused ends the join when the refusal comes from the invite's author or a hint; others may just not know yet.
func (e *entering) refused(a *join.Answer) error {
	err := finalError(a.Word)
	if err != nil && e.final[a.Node] {
		return err
	}
	e.Refused("refused by " + a.Node.Short() + ": " + string(a.Word))
	return nil
}

func finalError(w join.Word) error {
	switch w {
	case join.WordExpired:
		return ErrInviteExpired
	case join.WordUsed:
		return ErrInviteUsed
	case join.WordRevoked:
		return ErrInviteRevoked
	}
	return nil
}

// follow goes through the join stream with one answerer.
func (e *entering) follow(ctx context.Context, peer Provisional) (*join.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptFor)
	defer cancel()
	c, err := e.Dial(ctx, netip.AddrPortFrom(peer.Control, Port))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := wire.New(c, attemptFor, attemptFor)
	if err := conn.WritePreface(wire.KindJoin); err != nil {
		return nil, err
	}
	if kind, err := conn.ReadPreface(); err != nil || kind != wire.KindJoin {
		return nil, errors.Join(err, errProtocol)
	}
	return join.Enter(conn, join.Entering{
		Network: e.Token.Network, Admit: e.admit, Invite: e.Token.Invite, Grants: e.Token.Grants, Answerer: peer.Node,
		WG: peer.WG,
	})
}

// result ends the join with an entry, or goes on asking.
func (e *entering) result(r attempt) (done bool, err error) {
	if r.err != nil {
		e.dropAttempt(r.peer)
		if refused, ok := errors.AsType[*join.RefusedError](r.err); ok {
			if err := finalError(refused.Word); err != nil && e.final[r.peer.Node] {
				e.giveUp(identity.PeerID{})
				return true, err
			}
		}
		e.Refused(r.err.Error())
		if err := e.asker.Ask(time.Now(), r.peer.Place); err != nil {
			return true, err
		}
		return false, nil
	}
	e.giveUp(r.peer.Node)
	return true, e.keep(r)
}

func (e *entering) dropAttempt(p Provisional) {
	delete(e.attempts, p.Node)
	p.Over = true
	e.Provisional(p)
}

// giveUp takes down every provisional peer but one.
func (e *entering) giveUp(except identity.PeerID) {
	for id, p := range e.attempts {
		if id != except {
			e.dropAttempt(p)
		}
	}
}

// keep writes what the answerer handed over.
func (e *entering) keep(r attempt) error {
	f := &networkFile{Genesis: r.entry.Genesis.Signed.Marshal(), Keys: r.entry.Keys, RelayKey: r.entry.RelayKey}
	if r.skew.Abs() > wrongClock {
		f.Skew = r.skew.Milliseconds()
	}
	var first []fact
	for _, s := range r.entry.Statements {
		first = append(first, statementFact(s))
	}
	for _, rec := range r.entry.Records {
		first = append(first, recordFact(rec))
	}
	for _, raw := range r.entry.Cards {
		first = append(first, fact{kind: factCard, raw: raw})
	}
	for _, raw := range r.entry.Reaches {
		first = append(first, fact{kind: factReach, raw: raw})
	}
	first = append(first,
		statementFact(e.Token.Invite),
		fact{kind: factAdmit, raw: e.admit.Raw},
		fact{kind: factAcceptance, raw: r.entry.Acceptance.Marshal()})
	if err := e.Store.begin(f, first); err != nil {
		return err
	}
	b := newBook()
	if !r.peer.Place.IsRelay() {
		b.worked(time.Now(), r.peer.Node, r.peer.Place.Addr)
	}
	e.Store.book = b
	return e.Store.saveBook(b.file())
}
