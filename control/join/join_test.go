package join

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

var (
	start  = time.Unix(1_800_000_000, 0)
	joiner = at("192.0.2.7:41820")
	member = at("198.51.100.1:41820")
)

func at(addr string) datagram.Place { return datagram.Place{Addr: netip.MustParseAddrPort(addr)} }

func byRelay(id *identity.Identity) datagram.Place { return datagram.Place{Relay: id.ID()} }

// town is a network with its founder, an invite, and somebody who holds the token.
type town struct {
	founder, guest *identity.Identity
	k              identity.Secret
	ledger         *ledger.Ledger
	token          *ledger.Token
	view           *View
	answerer       *Answerer
}

func newTown(t *testing.T) *town {
	t.Helper()
	w := &town{founder: identity.FromSeed(identity.Secret{1}), guest: identity.FromSeed(identity.Secret{2}), k: identity.Secret{3}}
	g, err := ledger.Found(w.founder, ledger.FoundParams{Name: "town", Prefix4: netip.MustParsePrefix("100.88.0.0/16")}, w.k, start)
	if err != nil {
		t.Fatal(err)
	}
	if w.ledger, err = ledger.New(g.Signed); err != nil {
		t.Fatal(err)
	}
	_, w.token, err = w.ledger.Invite(w.founder, ledger.InviteParams{Uses: 1, Expires: time.Hour, K: w.k}, start)
	if err != nil {
		t.Fatal(err)
	}
	w.view = NewView(g.ID, []identity.Secret{w.k}, map[ledger.ShortID]identity.Secret{
		ledger.Short(w.token.InviteID()): w.token.PSK,
	})
	w.answerer = NewAnswerer(w.founder)
	return w
}

func (w *town) admit() *ledger.Admit {
	return ledger.NewAdmit(w.guest, w.token.Network, w.token.InviteID(), w.token.Seed)
}

func (w *town) asker() *Asker {
	return NewAsker(AskerConfig{
		Self: w.guest, Network: w.token.Network, ID: ledger.Short(w.token.InviteID()), PSK: w.token.PSK,
		Content: Content{Admit: w.admit().Raw, Invite: w.token.Invite.Marshal()},
	})
}

// intro is what an asker sends to the member first, and again with the cookie.
func (w *town) intro(t *testing.T, a *Asker) (first, second []byte) {
	t.Helper()
	if err := a.Ask(start, member); err != nil {
		t.Fatal(err)
	}
	sent, next := a.Due(start)
	if len(sent) != 1 || sent[0].To != member || !next.Equal(start.Add(firstRetry)) {
		t.Fatalf("sent %d, next %v", len(sent), next)
	}
	reply, req := w.answerer.Handle(start, w.view, joiner, sent[0].Data)
	if req != nil || len(reply) != CookieSize {
		t.Fatalf("an intro without a cookie got %d bytes and request %v", len(reply), req)
	}
	again, _ := a.Handle(start, member, reply)
	if again == nil {
		t.Fatal("the cookie was not used")
	}
	return sent[0].Data, again.Data
}

func TestIntroCookieWelcome(t *testing.T) {
	w := newTown(t)
	a := w.asker()
	first, second := w.intro(t, a)
	if len(first) != IntroSize || !bytes.Equal(first[34:], second[34:]) {
		t.Fatal("a retry must be the same bytes but for the cookie")
	}
	_, req := w.answerer.Handle(start, w.view, joiner, second)
	if req == nil {
		t.Fatalf("no request: %+v", w.answerer.Counters())
	}
	if req.Member || req.Node != w.guest.ID() || req.Admit.ID != w.admit().ID || req.From != joiner {
		t.Fatalf("request = %+v", req)
	}
	pkt, psk := w.answerer.Accept(start, req, start.Add(time.Minute))
	if len(pkt) > IntroSize {
		t.Fatalf("a welcome of %d bytes is longer than its intro", len(pkt))
	}
	_, answer := a.Handle(start, member, pkt)
	if answer == nil {
		t.Fatal("the welcome was not understood")
	}
	if answer.Node != w.founder.ID() || answer.WG != w.founder.WG() || answer.Seen != joiner.Addr ||
		!answer.Time.Equal(start.Add(time.Minute)) || answer.PSK != psk || psk.IsZero() {
		t.Fatalf("welcome = %+v", answer)
	}
	if again, req := w.answerer.Handle(start, w.view, joiner, second); req != nil || !bytes.Equal(again, pkt) {
		t.Fatal("the same intro must get the same welcome")
	}
}

func TestRefusalIsSigned(t *testing.T) {
	w := newTown(t)
	a := w.asker()
	_, second := w.intro(t, a)
	_, req := w.answerer.Handle(start, w.view, joiner, second)
	pkt := w.answerer.Refuse(start, req, WordUsed)
	_, answer := a.Handle(start, member, pkt)
	if answer == nil || answer.Word != WordUsed || answer.Node != w.founder.ID() {
		t.Fatalf("answer = %+v", answer)
	}
	other := NewAnswerer(identity.FromSeed(identity.Secret{9}))
	forged := req.keys.seal(req.e.Public(), forge(other, w.founder.ID(), req))
	if _, answer := a.Handle(start, member, forged); answer != nil {
		t.Fatal("a refusal in another's name was believed")
	}
}

// forge is a refusal in the name of somebody whose key it lacks.
func forge(by *Answerer, name identity.PeerID, req *Request) *answer {
	return &answer{
		Node: name, Word: WordRevoked,
		Signature: by.self.Sign(identity.PurposeRefusal, req.keys.network, refusalBody(WordRevoked, req.hash)),
	}
}

// TestIntroRefusals lists what an answerer stays silent to.
func TestIntroRefusals(t *testing.T) {
	w := newTown(t)
	_, good := w.intro(t, w.asker())
	flip := func(at int) []byte {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		return bad
	}
	for _, c := range []struct {
		name  string
		from  datagram.Place
		at    time.Time
		pkt   []byte
		count func(Counters) uint64
	}{
		{"short", joiner, start, good[:IntroSize-1], func(c Counters) uint64 { return c.Malformed }},
		{"empty", joiner, start, nil, func(c Counters) uint64 { return c.Malformed }},
		{"other version", joiner, start, flip(1), func(c Counters) uint64 { return c.Malformed }},
		{"unknown invite", joiner, start, flip(2), func(c Counters) uint64 { return c.Unknown }},
		{"altered seal", joiner, start, flip(IntroSize - 1), func(c Counters) uint64 { return c.Sealed }},
		{"cookie of another address", at("192.0.2.8:41820"), start, good, func(c Counters) uint64 { return c.Cookies }},
		{"cookie too old", joiner, start.Add(5 * time.Minute), good, func(c Counters) uint64 { return c.Cookies }},
		{"altered cookie", joiner, start, flip(20), func(c Counters) uint64 { return c.Cookies }},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.count(w.answerer.Counters())
			reply, req := w.answerer.Handle(c.at, w.view, c.from, c.pkt)
			if req != nil {
				t.Fatal("it became a request")
			}
			if len(reply) > 0 && len(reply) != CookieSize {
				t.Fatalf("answered with %d bytes", len(reply))
			}
			if got := c.count(w.answerer.Counters()); got != before+1 {
				t.Fatalf("counters = %+v", w.answerer.Counters())
			}
		})
	}
}

// TestNodeSignature takes somebody else's admit: without that node's key it is no request.
func TestNodeSignature(t *testing.T) {
	w := newTown(t)
	thief := NewAsker(AskerConfig{
		Self: identity.FromSeed(identity.Secret{9}), Network: w.token.Network,
		ID: ledger.Short(w.token.InviteID()), PSK: w.token.PSK,
		Content: Content{Admit: w.admit().Raw, Invite: w.token.Invite.Marshal()},
	})
	_, second := w.intro(t, thief)
	if _, req := w.answerer.Handle(start, w.view, joiner, second); req != nil {
		t.Fatal("an admit was used by somebody who does not own it")
	}
	if got := w.answerer.Counters().BadSignature; got != 1 {
		t.Fatalf("counters = %+v", w.answerer.Counters())
	}
}

// TestUnheardInvite joins through a member that has not heard of the invite: the PSK follows from K.
func TestUnheardInvite(t *testing.T) {
	w := newTown(t)
	w.view = NewView(w.view.Network, w.view.Keys, nil)
	_, second := w.intro(t, w.asker())
	if _, req := w.answerer.Handle(start, w.view, joiner, second); req == nil {
		t.Fatalf("no request: %+v", w.answerer.Counters())
	}
}

// TestMemberIntro is a member that asks to be found again.
func TestMemberIntro(t *testing.T) {
	w := newTown(t)
	id := w.guest.ID()
	a := NewAsker(AskerConfig{
		Self: w.guest, Network: w.view.Network, ID: ledger.KnownID(w.k, w.view.Network), PSK: w.k,
		Content: Content{Node: &id, Admit: w.admit().Raw},
	})
	_, second := w.intro(t, a)
	_, req := w.answerer.Handle(start, w.view, joiner, second)
	if req == nil || !req.Member || req.Node != id {
		t.Fatalf("request = %+v, %+v", req, w.answerer.Counters())
	}
}

// TestFlood keeps memory and answers bounded whatever comes.
func TestFlood(t *testing.T) {
	w := newTown(t)
	requests, answered := 0, 0
	for i := range 1000 {
		from := datagram.Place{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 12), byte(i >> 4), byte(i)}), 1000)}
		a := w.asker()
		a.Ask(start, member)
		sent, _ := a.Due(start)
		reply, _ := w.answerer.Handle(start, w.view, from, sent[0].Data)
		if reply == nil {
			continue
		}
		answered++
		again, _ := a.Handle(start, member, reply)
		if _, req := w.answerer.Handle(start, w.view, from, again.Data); req != nil {
			requests++
			w.answerer.Accept(start, req, start)
		}
		if i%50 == 0 && answered == 0 {
			t.Fatal("nobody gets an answer at all")
		}
	}
	if requests > 20 {
		t.Fatalf("%d requests within one moment, want at most 20", requests)
	}
	if len(w.answerer.welcomes) > maxWelcomes {
		t.Fatalf("%d welcomes kept", len(w.answerer.welcomes))
	}
}

// stream runs both sides of a join stream.
func stream(w *town, in Entering, let Letting) (entry *Entry, entryErr, letErr error) {
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, letErr = Let(wire.New(b, time.Second, time.Second), let)
		b.Close()
	}()
	entry, entryErr = Enter(wire.New(a, time.Second, time.Second), in)
	a.Close()
	<-done
	return entry, entryErr, letErr
}

func (w *town) entering() Entering {
	return Entering{Network: w.token.Network, Admit: w.admit(), Invite: w.token.Invite, Answerer: w.founder.ID(), WG: w.founder.WG()}
}

func (w *town) letting(t *testing.T) Letting {
	t.Helper()
	proof, err := w.ledger.Proof(w.founder.ID())
	if err != nil {
		t.Fatal(err)
	}
	return Letting{
		Genesis: w.ledger.Genesis().Signed, Network: w.token.Network, Joiner: w.guest.ID(), Proof: proof,
		Accept: func(admit *ledger.Admit, _ ledger.Signed, _ []ledger.Signed) (ledger.Signed, []identity.Secret, identity.Secret, error) {
			if _, err := w.ledger.AddAdmit(admit.Raw); err != nil {
				return ledger.Signed{}, nil, identity.Secret{}, err
			}
			x, err := w.ledger.Accept(w.founder, admit.ID, start)
			return x, []identity.Secret{w.k}, identity.Secret{5}, err
		},
		Knowledge: func() Knowledge {
			return Knowledge{
				Statements: slices.Collect(w.ledger.Statements(0)), Records: slices.Collect(w.ledger.Records(0)),
				Cards: [][]byte{{1}}, Reaches: [][]byte{{2}, make([]byte, ledgerFrame)},
			}
		},
	}
}

func TestStream(t *testing.T) {
	w := newTown(t)
	entry, err, letErr := stream(w, w.entering(), w.letting(t))
	if err != nil || letErr != nil {
		t.Fatal(err, letErr)
	}
	if entry.Genesis.ID != w.token.Network || entry.Keys[0] != w.k || entry.RelayKey != (identity.Secret{5}) {
		t.Fatalf("entry = %+v", entry)
	}
	if !w.ledger.State(start).IsMember(w.guest.ID()) {
		t.Fatal("the guest is no member")
	}
	if len(entry.Statements) != 1 || len(entry.Records) != 2 || len(entry.Cards) != 1 || len(entry.Reaches) != 2 {
		t.Fatalf("%d statements and %d records handed over", len(entry.Statements), len(entry.Records))
	}
}

func TestStreamRefusals(t *testing.T) {
	stranger := identity.FromSeed(identity.Secret{9})
	for _, c := range []struct {
		name     string
		alter    func(w *town, in *Entering, let *Letting)
		entryErr error
		letErr   error
	}{
		{"answerer is not who the proof is of", func(_ *town, in *Entering, _ *Letting) { in.Answerer = stranger.ID() }, ErrImpostor, nil},
		{"answerer has another WireGuard key", func(_ *town, in *Entering, _ *Letting) { in.WG[0]++ }, ErrImpostor, nil},
		{"another network", func(_ *town, in *Entering, _ *Letting) { in.Network[0]++ }, nil, ledger.ErrForeignNetwork},
		{"somebody else's stream", func(_ *town, _ *Entering, let *Letting) { let.Joiner = stranger.ID() }, nil, ErrProtocol},
		{"keys of another network", func(w *town, _ *Entering, _ *Letting) { w.k[0]++ }, ErrWrongKeys, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTown(t)
			in, let := w.entering(), w.letting(t)
			c.alter(w, &in, &let)
			entry, err, letErr := stream(w, in, let)
			if err == nil || entry != nil {
				t.Fatal("the joiner was content")
			}
			if c.entryErr != nil && !errors.Is(err, c.entryErr) {
				t.Errorf("joiner: %v, want %v", err, c.entryErr)
			}
			if c.letErr != nil && !errors.Is(letErr, c.letErr) {
				t.Errorf("answerer: %v, want %v", letErr, c.letErr)
			}
		})
	}
}

func TestStreamRefusedByWord(t *testing.T) {
	w := newTown(t)
	let := w.letting(t)
	let.Accept = func(*ledger.Admit, ledger.Signed, []ledger.Signed) (ledger.Signed, []identity.Secret, identity.Secret, error) {
		return ledger.Signed{}, nil, identity.Secret{}, &RefusedError{WordExpired, "an hour ago"}
	}
	_, err, _ := stream(w, w.entering(), let)
	if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Word != WordExpired {
		t.Fatalf("err = %v", err)
	}
}

func FuzzContent(f *testing.F) {
	f.Add(make([]byte, room))
	f.Add([]byte{0, 1, 0xa0})
	f.Fuzz(func(t *testing.T, plain []byte) {
		if c, err := parseContent(plain); err == nil && c.Node == nil && (c.Invite == nil || c.Admit == nil) {
			t.Fatalf("%x is neither a joiner's nor a member's", plain)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, plain []byte) {
		if a, err := parseAnswer(plain); err == nil && a.Word != "" && !a.Word.known() {
			t.Fatalf("unknown word %q", a.Word)
		}
	})
}

func FuzzAnswererHandle(f *testing.F) {
	w := &town{founder: identity.FromSeed(identity.Secret{1})}
	a := NewAnswerer(w.founder)
	v := NewView(identity.NetworkID{1}, []identity.Secret{{3}}, nil)
	f.Add(make([]byte, IntroSize))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		for _, from := range []datagram.Place{joiner, byRelay(w.founder)} {
			if reply, req := a.Handle(start, v, from, pkt); req != nil || len(reply) > len(pkt) {
				t.Fatalf("%x from %v got %x, %v", pkt, from, reply, req)
			}
		}
	})
}
