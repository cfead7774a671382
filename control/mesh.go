package control

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/control/join"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/control/shelf"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/netmap"
)

// Port is where members listen for control streams, on their control addresses.
const Port = 41820

// Config of a Mesh.
type Config struct {
	Logger   *slog.Logger // nil discards
	Identity *identity.Identity
	Store    *Store
	Boot     [8]byte // drawn at each start
	Version  string
	Name     string  // what this node would like to be called
	Host     [8]byte // the same for nodes of one host
	Port     uint16  // of the underlay socket
	RelayURL string  // of the relay server that this node runs; "": none

	// Now is the host's clock. nil: time.Now.
	Now func() time.Time
	// Shared spares nodes of one process each other's work. nil: nobody's.
	Shared *ledger.Shared
	// Dial opens a control stream to a control address.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Listener accepts control streams.
	Listener net.Listener
	// Observe tells the underlay address that a peer's packets come from, if it is direct.
	Observe func(identity.PeerID) netip.AddrPort
	// Keepalive sends a member an empty packet, if there is a session to send it with. It must not block. nil: sessions
	// ask their peers instead.
	Keepalive func(identity.PeerID)
	// Heard is when the last packet of a member came; zero: none did. Needed with Keepalive.
	Heard func(identity.PeerID) time.Time
	// Rendezvous sends a datagram of joining to an address, or by the relay servers that lead to a node. It must not
	// block.
	Rendezvous func(to datagram.Place, pkt []byte)
	// RelayPass makes a pass for the network's relay servers that is good until expires; zero: for ever. At most
	// ledger.MaxPass bytes. nil: tokens carry none.
	RelayPass func(expires time.Time) []byte
	// Provisional makes a joiner reachable, or with Over ends that. Called without locks held.
	Provisional func(Provisional)
	// OnSignal gets the sealed packets that members sent with Signal, as they came: what they hold proves who made them.
	// Called by several goroutines at once; it must not block for long. The packet is its own.
	OnSignal func(pkt []byte)
	// Changed gets every new map, one at a time. It must not block for long.
	Changed func(*netmap.Map)
	// Events gets what happens, one at a time. It must not block for long.
	Events func(Event)
}

// Provisional is a peer that is being let in, or lets us in.
type Provisional struct {
	Node    identity.PeerID
	WG      identity.WGKey
	Control netip.Addr
	Place   datagram.Place // where its Intro or Welcome came from
	PSK     identity.Secret
	Over    bool // it is a member now, or will not be one
}

// Mesh is a member's side of its network. Safe for concurrent use.
type Mesh struct {
	cfg           Config
	wall          func() time.Time
	log           *slog.Logger
	self          *identity.Identity
	network       netmap.Network
	store         *Store
	intros        chan introPacket
	introductions chan []datagram.Place
	announced     *netmap.Map   // owned by Run
	toSave        chan struct{} // there are facts to write
	dirty         chan struct{} // the map may have changed, or there is somebody to dial
	view          atomic.Pointer[join.View]
	current       atomic.Pointer[netmap.Map]
	counts        counts
	partners      atomic.Pointer[partners]
	signals       signals
	answered      atomic.Pointer[join.Counters] // as of the last datagram of joining; nil: none came
	ear           ear                           // what the packet side told
	skew          atomic.Int64                  // nanoseconds, as last computed

	saving  sync.Mutex // serialises writes to the store; taken before mu, never within
	drawing sync.Mutex // serialises the making of maps; taken before mu, never within
	drawn   drawn      // guarded by drawing

	mu          sync.Mutex
	ledger      *ledger.Ledger                // this and all below guarded by mu
	cards       map[identity.PeerID]*Card     // newest of every member, ours among them
	reaches     map[identity.PeerID]*Reach    //
	book        *book                         //
	clock       *meshClock                    //
	sessions    map[identity.PeerID]*session  // handshaking ones too
	dialing     map[identity.PeerID]bool      //
	provisional map[netip.Addr]provisional    // by control address
	myCard      *Card                         //
	myReach     *Reach                        //
	here        Reachability                  // ours
	relayURL    string                        // of the relay server that we offer
	statements  int                           // how many of the ledger's were pushed and saved
	records     int                           //
	unsaved     []fact                        // cards and reaches
	shelf       shelf.Set                     // of cards
	mode        ring.Mode                     //
	spread      spread                        //
	topology    topology                      //
	compared    bucket.Bucket                 // how often with new partners
	asked       map[identity.PeerID]time.Time // members that got an Intro of ours
	former      map[identity.PeerID]string    // what the revoked were called last
	events      []Event                       // for Run to tell
	ownForeign  int                           // how often our card came back above ours with a foreign boot id
	lastOwnCard time.Time
	rng         *rand.Rand
	factsErr    error // why facts could not be written the last time
	bookErr     error // why the address book could not be
	keepAt      time.Time
	changes     map[identity.PeerID]*bucket.Bucket
	upPeers     map[identity.PeerID]bool // EventSessionUp was told
	revoked     map[identity.PeerID]bool // told
	overused    map[identity.Hash]bool   // told
	skewTold    time.Duration
	touched     map[identity.PeerID]struct{} // whose card, reach or good endpoints the map does not have yet
	drawAt      time.Time                    // when it is to have them; zero: nothing was touched
	renamed     bool                         // somebody wants another name
	namesDue    time.Time                    // when a name is free again, mesh time; zero: none is held
}

type provisional struct {
	Provisional
	until   time.Time // taken down then
	settled time.Time // no other Intro replaces it before
}

// New makes a Mesh of a store that belongs to a network.
func New(cfg Config) (*Mesh, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Store.network == nil {
		return nil, ErrNoNetwork
	}
	if cfg.RelayURL != "" && !ledger.ValidRelayURL(cfg.RelayURL) {
		return nil, ledger.ErrOffer
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	genesis, err := cfg.Store.genesis()
	if err != nil {
		return nil, err
	}
	l, err := ledger.New(genesis.Signed)
	if err != nil {
		return nil, err
	}
	l.ShareWith(cfg.Shared)
	m := &Mesh{
		cfg: cfg, wall: cfg.Now, log: cfg.Logger, self: cfg.Identity, network: genesis.Network(), store: cfg.Store, ledger: l,
		intros: make(chan introPacket, introQueue), dirty: make(chan struct{}, 1),
		toSave: make(chan struct{}, 1),
		cards:  make(map[identity.PeerID]*Card), reaches: make(map[identity.PeerID]*Reach),
		book: cfg.Store.book, clock: newClock(time.Duration(cfg.Store.network.Skew) * time.Millisecond),
		sessions: make(map[identity.PeerID]*session), dialing: make(map[identity.PeerID]bool),
		provisional: make(map[netip.Addr]provisional), touched: make(map[identity.PeerID]struct{}),
		asked: make(map[identity.PeerID]time.Time), former: make(map[identity.PeerID]string),
		changes: make(map[identity.PeerID]*bucket.Bucket), upPeers: make(map[identity.PeerID]bool),
		revoked: make(map[identity.PeerID]bool), overused: make(map[identity.Hash]bool),
		introductions: make(chan []datagram.Place, 16),
		relayURL:      cfg.RelayURL, spread: newSpread(), rng: rand.New(rand.NewChaCha8(identity.NewSecret())),
	}
	m.signals.router = ring.NewRouter(ring.Config{Self: m.self, Network: m.network.ID})
	m.notePartners()
	if err := m.load(); err != nil {
		return nil, err
	}
	return m, nil
}

// manyFacts is from when on what reading them leaves behind is given back to the system at once: as much again as is
// kept, which would else stay with the process until the heap grows into it.
const manyFacts = 10_000

// load takes what the store remembers, and makes our card.
func (m *Mesh) load() error {
	many := len(m.store.facts) >= manyFacts
	for _, f := range m.store.facts {
		m.loadFact(f)
	}
	m.store.facts = nil
	m.statements, m.records = m.ledger.Len()
	m.holdAll()
	m.raiseFloor(0)
	if err := m.compact(); err != nil {
		return err
	}
	last := m.cards[m.self.ID()]
	m.unsaved = append(m.unsaved, m.makeCard(last), m.makeReach())
	if err := m.flush(); err != nil {
		return err
	}
	m.rebuild()
	if many {
		debug.FreeOSMemory()
	}
	return nil
}

func (m *Mesh) loadFact(f fact) {
	var err error
	switch f.kind {
	case factStatement:
		var s ledger.Signed
		if s, err = ledger.ParseSigned(f.raw); err == nil {
			_, err = m.ledger.AddStatement(s)
		}
	case factAdmit:
		_, err = m.ledger.AddAdmit(f.raw)
	case factAcceptance:
		var s ledger.Signed
		if s, err = ledger.ParseSigned(f.raw); err == nil {
			_, err = m.ledger.AddAcceptance(s)
		}
	case factCard:
		var c *Card
		if c, err = m.readCard(f.raw); err == nil && (m.cards[c.Node] == nil || m.cards[c.Node].Seq < c.Seq) {
			m.setCard(c)
		}
	case factReach:
		var r *Reach
		if r, err = m.readReach(f.raw); err == nil && (m.reaches[r.Node] == nil || m.reaches[r.Node].Seq < r.Seq) {
			m.reaches[r.Node] = r
		}
	}
	if err != nil {
		m.log.Warn("a record on disk is not valid and was passed over", "kind", f.kind, "err", err)
	}
}

func (m *Mesh) cardFacts() []fact {
	var all []fact
	for _, c := range m.cards {
		all = append(all, cardFact(c))
	}
	for _, r := range m.reaches {
		all = append(all, reachFact(r))
	}
	return all
}

// now is the mesh's time. Called with mu held.
func (m *Mesh) now() time.Time {
	t := m.wall()
	return t.Add(m.clock.skew(t))
}

// jitter is a random number from 0 to 1.
func (m *Mesh) jitter() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.Float64()
}

func (m *Mesh) nonce() uint64 {
	s := identity.NewSecret()
	return binary.BigEndian.Uint64(s[:8])
}

// update is one change of the state and what follows from it: facts to push, events to tell.
type update struct {
	from   *session // who brought it; nil: we did
	facts  []fact   // new cards and reaches
	events []Event
	urgent bool // on disk before anybody hears of it
}

func (u *update) tell(e Event) { u.events = append(u.events, e) }

// update runs f with mu held, then saves, passes on and tells what came of it. What f had merged before it failed counts.
func (m *Mesh) update(f func(u *update) error) error {
	u := new(update)
	m.mu.Lock()
	err := f(u)
	fresh := m.collect(u)
	m.events = append(m.events, u.events...)
	m.mu.Unlock()
	if u.urgent {
		if saveErr := m.flush(); saveErr != nil {
			return errors.Join(err, saveErr) // nobody hears of it yet; the next comparison of digests tells, once it is saved
		}
	}
	if len(fresh) > 0 {
		m.passAll(fresh, u.from)
	}
	if len(fresh) > 0 || len(u.events) > 0 {
		m.poke()
	}
	return err
}

// collect finds what is new in the ledger since the last time. Called with mu held.
func (m *Mesh) collect(u *update) []fact {
	var fresh []fact
	for s := range m.ledger.Statements(m.statements) {
		fresh = append(fresh, statementFact(s))
	}
	for r := range m.ledger.Records(m.records) {
		fresh = append(fresh, recordFact(r))
	}
	m.raiseFloor(m.statements)
	m.statements, m.records = m.ledger.Len()
	m.unsaved = append(m.unsaved, fresh...)
	for _, f := range u.facts { // only the newest of a kind and node is worth a write
		m.unsaved = slices.DeleteFunc(m.unsaved, func(o fact) bool { return o.kind == f.kind && o.node == f.node })
		m.unsaved = append(m.unsaved, f)
	}
	if len(fresh)+len(u.facts) > 0 {
		select {
		case m.toSave <- struct{}{}:
		default:
		}
	}
	return append(fresh, u.facts...)
}

// raiseFloor lets the clock know how late admins have been heard.
func (m *Mesh) raiseFloor(from int) {
	for s := range m.ledger.Statements(from) {
		st, err := ledger.ParseStatement(s, m.network.ID)
		if err == nil && st.Author == m.ledger.Genesis().Founder {
			m.clock.raise(m.wall(), time.UnixMilli(int64(st.Time)))
		}
	}
}

// poke wakes Run.
func (m *Mesh) poke() {
	select {
	case m.dirty <- struct{}{}:
	default:
	}
}
