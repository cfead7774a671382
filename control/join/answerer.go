package join

import (
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	// welcomeLife is how long a Welcome is kept and resent as it was.
	welcomeLife = 60 * time.Second
	maxWelcomes = 256
	// kTries is how many generations of K an unknown invite id is tried under.
	kTries = 4
	// memberReserve of the 20 Intros a second is kept for members.
	memberReserve = 10
	// relayTries is how many Intros a second are opened that relays brought, in all and of one sender: no cookie bounds
	// these.
	relayTries, relayTriesEach = 200, 10
	// relayed is how many a second of those that open are looked at: half of all, so that senders, whom anybody can make
	// up at a relay, never shut out those at addresses.
	relayed = 10
)

// View is what an Answerer has to know of the network. Immutable.
type View struct {
	Network identity.NetworkID
	Keys    []identity.Secret                  // generations of K, newest first
	Invites map[ledger.ShortID]identity.Secret // PSK of each open invite
	known   map[ledger.ShortID]identity.Secret // K by the id that members' Intros carry
}

// NewView completes a view.
func NewView(network identity.NetworkID, keys []identity.Secret, invites map[ledger.ShortID]identity.Secret) *View {
	v := &View{Network: network, Keys: keys, Invites: invites, known: make(map[ledger.ShortID]identity.Secret)}
	for _, k := range keys {
		v.known[ledger.KnownID(k, network)] = k
	}
	return v
}

// Request is an Intro that opened and whose node signed it. Somebody with the ledger decides on it.
type Request struct {
	From    datagram.Place
	Member  bool // sent by somebody who says to be a member already
	Node    identity.PeerID
	Content *Content
	Admit   *ledger.Admit // nil in an Intro of the founder
	Time    time.Time     // the sender's clock

	hash identity.Hash
	keys keys
	e    identity.Ephemeral
}

// Counters of an Answerer, by what became of each packet.
type Counters struct {
	Malformed, Unknown, Cookies, CookieLimited, RelayLimited, Sealed, Limited, BadSignature, Requests, Resent uint64
}

// Answerer takes Intros. It is owned by one goroutine.
type Answerer struct {
	self     *identity.Identity
	jar      cookieJar
	cookies  bucket.Prefixes
	senders  bucket.Prefixes // Intros that relays brought, by who sent them
	tries    bucket.Bucket   // all of these
	unknown  bucket.Bucket   // ids that nobody knows, tried under K
	total    bucket.Bucket   // Intros that opened
	relayed  bucket.Bucket   // of these, what relays brought
	perNet   bucket.Prefixes
	perNode  bucket.Prefixes // by relays' senders
	perID    map[ledger.ShortID]*bucket.Bucket
	welcomes map[identity.Hash]sentWelcome
	count    Counters
}

type sentWelcome struct {
	pkt []byte
	at  time.Time
}

// NewAnswerer makes an Answerer of a node.
func NewAnswerer(self *identity.Identity) *Answerer {
	return &Answerer{
		self:    self,
		cookies: bucket.Prefixes{Rate: 10, Burst: 20}, perNet: bucket.Prefixes{Rate: 5, Burst: 10},
		senders: bucket.Prefixes{Rate: relayTriesEach, Burst: 2 * relayTriesEach},
		perNode: bucket.Prefixes{Rate: 5, Burst: 10},
		perID:   make(map[ledger.ShortID]*bucket.Bucket), welcomes: make(map[identity.Hash]sentWelcome),
	}
}

// Counters are totals so far.
func (a *Answerer) Counters() Counters { return a.count }

// Handle takes an Intro. It returns a packet to send back, or a request to decide on, or neither. borrowed: pkt is
// only valid during the call.
func (a *Answerer) Handle(now time.Time, v *View, from datagram.Place, pkt []byte) (reply []byte, req *Request) {
	h, err := parseIntro(pkt)
	if err != nil {
		a.count.Malformed++
		return nil, nil
	}
	if from.IsRelay() && !(a.senders.Take(now, sender(from.Relay)) && a.tries.Take(now, relayTries, relayTries)) {
		a.count.RelayLimited++
		return nil, nil
	}
	psk, known := a.psk(v, h.id)
	if !known {
		if !a.unknown.Take(now, 200, 200) {
			a.count.Limited++
			return nil, nil
		}
		if psk, known = tryKeys(v, h, pkt); !known {
			a.count.Unknown++
			return nil, nil
		}
	}
	if !from.IsRelay() && !a.jar.check(now, from.Addr, h.e, h.cookie) { // a relay vouches for the source
		if !a.cookies.Take(now, from.Addr.Addr()) {
			a.count.CookieLimited++
			return nil, nil
		}
		a.count.Cookies++
		return cookiePacket(h.e, a.jar.make(now, from.Addr, h.e)), nil
	}
	hash := introHash(pkt)
	if sent, ok := a.welcomes[hash]; ok && now.Sub(sent.at) < welcomeLife {
		a.count.Resent++
		return sent.pkt, nil
	}
	return nil, a.open(now, v, from, pkt, h, psk, hash)
}

// sender stands for a relay's sender among prefixes: the first 7 bytes of its id, which is a key and so as good as random.
func sender(id identity.PeerID) netip.Addr { return netip.AddrFrom16([16]byte(id[:16])) }

// psk finds the key of an id: an open invite's, or a K.
func (a *Answerer) psk(v *View, id ledger.ShortID) (identity.Secret, bool) {
	if psk, ok := v.Invites[id]; ok {
		return psk, true
	}
	k, ok := v.known[id]
	return k, ok
}

// tryKeys opens the Intro of an invite that this node has not heard of yet.
func tryKeys(v *View, h header, pkt []byte) (identity.Secret, bool) {
	for i, k := range v.Keys {
		if i == kTries {
			break
		}
		psk := ledger.InvitePSK(k, v.Network, h.id)
		if _, err := openIntro(pkt, h, v.Network, psk); err == nil {
			return psk, true
		}
	}
	return identity.Secret{}, false
}

func (a *Answerer) open(
	now time.Time, v *View, from datagram.Place, pkt []byte, h header, psk identity.Secret, hash identity.Hash,
) *Request {
	c, err := openIntro(pkt, h, v.Network, psk)
	if err != nil {
		a.count.Sealed++
		return nil
	}
	if !a.budget(now, from, h.id, c.Node != nil) {
		a.count.Limited++
		return nil
	}
	req := &Request{
		From: from, Member: c.Node != nil, Content: c, Time: time.UnixMilli(int64(c.Time)),
		hash: hash, e: identity.NewEphemeral(),
	}
	if err := a.check(v, h, c, req); err != nil {
		a.count.BadSignature++
		return nil
	}
	shared, err := req.e.Shared(h.e)
	if err != nil {
		a.count.BadSignature++
		return nil
	}
	req.keys = keys{psk: psk, shared: shared, network: v.Network, intro: hash}
	a.count.Requests++
	return req
}

// check finds out who the sender is and that its node key signed. A relay must name the same sender.
func (a *Answerer) check(v *View, h header, c *Content, req *Request) error {
	if c.Node != nil {
		req.Node = *c.Node
	}
	if c.Admit != nil {
		admit, err := ledger.ParseAdmit(c.Admit, v.Network)
		if err != nil {
			return err
		}
		if c.Node != nil && admit.Node != *c.Node {
			return ErrMalformed
		}
		req.Node, req.Admit = admit.Node, admit
	}
	if req.From.IsRelay() && req.From.Relay != req.Node {
		return ErrMalformed
	}
	return c.verify(req.Node, v.Network, h)
}

// budget limits what opened: 20/s in all, of which members keep half and half comes by relays at most, 5/s for an invite
// and for a prefix of addresses or of a relay's senders.
func (a *Answerer) budget(now time.Time, from datagram.Place, id ledger.ShortID, member bool) bool {
	burst := 20.0
	if !member {
		burst -= memberReserve
		b := a.perID[id]
		if b == nil {
			if len(a.perID) >= 4096 {
				clear(a.perID)
			}
			b = new(bucket.Bucket)
			a.perID[id] = b
		}
		if !b.Take(now, 5, 10) {
			return false
		}
	}
	if from.IsRelay() {
		return a.perNode.Take(now, sender(from.Relay)) && a.relayed.Take(now, relayed, relayed) && a.total.Take(now, 20, burst)
	}
	return a.perNet.Take(now, from.Addr.Addr()) && a.total.Take(now, 20, burst)
}

// Accept makes the Welcome of a request, and the WireGuard PSK of the provisional peer.
func (a *Answerer) Accept(now time.Time, req *Request, meshTime time.Time) (pkt []byte, psk identity.Secret) {
	var seen []byte
	if !req.From.IsRelay() {
		seen, _ = req.From.Addr.MarshalBinary() // has no failure
	}
	pkt = req.keys.seal(req.e.Public(), &answer{
		Node: a.self.ID(), WG: a.self.WG(), Disco: a.self.Disco(),
		Time: uint64(max(0, meshTime.UnixMilli())), Seen: seen,
	})
	a.remember(now, req.hash, pkt)
	return pkt, req.keys.session(pkt)
}

// Refuse makes the Refusal of a request.
func (a *Answerer) Refuse(now time.Time, req *Request, w Word) []byte {
	pkt := req.keys.seal(req.e.Public(), &answer{
		Node: a.self.ID(), Word: w,
		Signature: a.self.Sign(identity.PurposeRefusal, req.keys.network, refusalBody(w, req.hash)),
	})
	if w != WordBusy && w != WordFull { // these may be over in a second
		a.remember(now, req.hash, pkt)
	}
	return pkt
}

func (a *Answerer) remember(now time.Time, hash identity.Hash, pkt []byte) {
	if len(a.welcomes) >= maxWelcomes {
		for h, sent := range a.welcomes {
			if now.Sub(sent.at) >= welcomeLife {
				delete(a.welcomes, h)
			}
		}
	}
	if len(a.welcomes) < maxWelcomes {
		a.welcomes[hash] = sentWelcome{pkt, now}
	}
}
