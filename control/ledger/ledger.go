package ledger

import (
	"iter"
	"maps"
	"slices"

	"github.com/meshnet/meshnet/control/shelf"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// Bounds of what is held without counting.
const (
	maxPendingStatements = 8 << 20  // bytes
	maxPendingRecords    = 32 << 20 // bytes: more than the admissions of 10 000 members in the worst order
	maxForeign           = 4096     // statements of non-admins, beyond those that others build on
)

// Ledger is everything stated and admitted in one network. Owned by a loop.
type Ledger struct {
	genesis *Genesis

	// The graph of statements. All parents of one are there before it.
	log     []*Statement
	byID    map[identity.Hash]*Statement
	heads   map[identity.Hash]*Statement
	tips    map[identity.PeerID]map[identity.Hash]*Statement // the last statements of each author
	next    map[identity.Hash]bool                           // continued by its own author
	forked  map[identity.PeerID]bool
	foreign int // statements of non-admins
	pending *pool[*Statement]

	// The admissions. What a record names is there before it.
	admissions  map[identity.Hash]*admission
	acceptances map[identity.Hash]*Acceptance
	acceptedBy  map[identity.PeerID][]*Acceptance
	records     []record  // both, in the order in which they came to count
	admitted    shelf.Set // their ids
	nodes       map[identity.PeerID]bool
	kept        map[identity.Hash]bool // named in some admin's keep, and not there yet
	open        *pool[record]

	cache  stateCache
	shared *Shared // nil: nothing is
}

// ShareWith has the ledger take part in what other nodes of the process parsed and verified.
func (l *Ledger) ShareWith(s *Shared) { l.shared = s }

// New makes the ledger of the network that genesis began.
func New(genesis Signed) (*Ledger, error) {
	g, err := ParseGenesis(genesis)
	if err != nil {
		return nil, err
	}
	return &Ledger{
		genesis:     g,
		byID:        map[identity.Hash]*Statement{},
		heads:       map[identity.Hash]*Statement{},
		tips:        map[identity.PeerID]map[identity.Hash]*Statement{},
		next:        map[identity.Hash]bool{},
		forked:      map[identity.PeerID]bool{},
		pending:     newPool[*Statement](maxPendingStatements),
		admissions:  map[identity.Hash]*admission{},
		acceptedBy:  map[identity.PeerID][]*Acceptance{},
		acceptances: map[identity.Hash]*Acceptance{},
		nodes:       map[identity.PeerID]bool{g.Founder: true},
		kept:        map[identity.Hash]bool{},
		open:        newPool[record](maxPendingRecords),
	}, nil
}

// Genesis is how the network began.
func (l *Ledger) Genesis() *Genesis { return l.genesis }

// Network is what all members share.
func (l *Ledger) Network() netmap.Network { return l.genesis.Network() }

func (l *Ledger) admin(id identity.PeerID) bool { return id == l.genesis.Founder }

// AddStatement takes a statement in. It reports false without an error for one it has already. One whose parents are
// missing waits for them: it is not in Statements until they came. The slices of s are kept and must not be changed.
func (l *Ledger) AddStatement(s Signed) (added bool, err error) {
	if len(s.Body) > MaxPolicy {
		return false, ErrTooLarge
	}
	id := identity.Sum(identity.PurposeStatement, s.Body)
	if _, waits := l.pending.get(id); waits || l.byID[id] != nil {
		return false, nil
	}
	st, err := ParseStatement(s, l.genesis.ID)
	if err != nil {
		return false, err
	}
	needed := len(l.pending.waiting[id])+len(l.open.waiting[id]) > 0
	if !needed && !l.admin(st.Author) && l.foreign >= maxForeign {
		return false, ErrFull
	}
	if missing, ok := l.missingParent(st); !ok {
		l.pending.add(id, st, len(s.Body))
		l.pending.wait(id, missing)
		return true, nil
	}
	if !l.fits(st) {
		return false, ErrVoid
	}
	l.connect(st)
	return true, nil
}

func (l *Ledger) missingParent(st *Statement) (identity.Hash, bool) {
	for _, parents := range [...][]identity.Hash{st.Prev, st.Seen} {
		for _, p := range parents {
			if l.byID[p] == nil {
				return p, false
			}
		}
	}
	return identity.Hash{}, true
}

// fits checks what follows from the parents alone, so that every node refuses the same statements.
func (l *Ledger) fits(st *Statement) bool {
	var clock uint64
	for _, p := range st.Prev {
		if l.byID[p].Author != st.Author {
			return false
		}
		clock = max(clock, l.byID[p].Clock)
	}
	for _, p := range st.Seen {
		clock = max(clock, l.byID[p].Clock)
	}
	return st.Clock == clock+1
}

// connect puts a statement that fits into the graph, then those that waited for it.
func (l *Ledger) connect(first *Statement) {
	queue := []*Statement{first}
	for len(queue) > 0 {
		st := queue[0]
		queue = queue[1:]
		l.insert(st)
		for _, id := range l.pending.waiters(st.ID) {
			waiter, _ := l.pending.get(id)
			if missing, ok := l.missingParent(waiter); !ok {
				l.pending.wait(id, missing)
				continue
			}
			l.pending.remove(id)
			if l.fits(waiter) {
				queue = append(queue, waiter)
			}
		}
	}
}

func (l *Ledger) insert(st *Statement) {
	st.pos = len(l.log)
	l.log = append(l.log, st)
	l.byID[st.ID] = st
	l.heads[st.ID] = st
	tips := l.tips[st.Author]
	if tips == nil {
		tips = map[identity.Hash]*Statement{}
		l.tips[st.Author] = tips
	} else if len(st.Prev) == 0 {
		l.forked[st.Author] = true // a second beginning
	}
	for _, p := range st.Prev {
		if l.next[p] {
			l.forked[st.Author] = true
		}
		l.next[p] = true
		delete(tips, p)
		delete(l.heads, p)
	}
	for _, p := range st.Seen {
		delete(l.heads, p)
	}
	tips[st.ID] = st
	if !l.admin(st.Author) {
		l.foreign++
	}
	l.cache.drop()
	l.settleStatement(st)
}

// Statement finds a statement by id, nil when it is not there or waits for its parents.
func (l *Ledger) Statement(id identity.Hash) *Statement { return l.byID[id] }

// Len is the number of statements and of records, to be continued from with Statements and Records.
func (l *Ledger) Len() (statements, records int) { return len(l.log), len(l.records) }

// Pending is how many statements and records wait for what they name.
func (l *Ledger) Pending() (statements, records int) { return len(l.pending.items), len(l.open.items) }

// Statements are all statements behind the first from, parents before children.
func (l *Ledger) Statements(from int) iter.Seq[Signed] {
	log := l.log[min(from, len(l.log)):]
	return func(yield func(Signed) bool) {
		for _, st := range log {
			if !yield(st.Signed) {
				return
			}
		}
	}
}

// Heads are the statements that no other one builds on, sorted.
func (l *Ledger) Heads() []identity.Hash { return slices.SortedFunc(maps.Keys(l.heads), compareHash) }

// Missing are the statements that someone with the given heads lacks, parents first, as far as those heads are known
// here. It also tells whether some are not.
func (l *Ledger) Missing(theirs []identity.Hash) (lacking []Signed, unknown bool) {
	has := make([]bool, len(l.log))
	last := -1
	for _, h := range theirs {
		st := l.byID[h]
		if st == nil {
			unknown = true
			continue
		}
		has[st.pos] = true
		last = max(last, st.pos)
	}
	for i := last; i >= 0; i-- { // children stand behind their parents
		if !has[i] {
			continue
		}
		for _, p := range l.log[i].Prev {
			has[l.byID[p].pos] = true
		}
		for _, p := range l.log[i].Seen {
			has[l.byID[p].pos] = true
		}
	}
	for i, st := range l.log {
		if !has[i] {
			lacking = append(lacking, st.Signed)
		}
	}
	return lacking, unknown
}
