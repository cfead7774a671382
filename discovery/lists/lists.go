package lists

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is what a Lists works with. Found is needed. Its functions are called by Run's goroutine, must not block for
// long, and may call all of Lists but Run.
type Config struct {
	Entries []string // of the user: see ParseEntry. What is none is a failure of its own
	File    string   // with an entry a line, at most 1 MiB, of which 1024 entries count; "": none
	DNS     string   // domain name of a DNS list: see ParseName; "": none
	// Resolvers are the DNS servers to ask for everything. nil: the system's, and hosts as the system looks them up.
	Resolvers []netip.AddrPort
	// Own are the addresses of the node itself, which are not handed out. nil: none.
	Own func() []netip.AddrPort
	// Refused reports whether an address is inside the mesh, and so not handed out. nil: none is.
	Refused func(netip.Addr) bool
	// Lacking reports whether too few members are connected, so that addresses are wanted. It is asked often. nil: always.
	Lacking func() bool
	// Found is given addresses to ask: at most 64 in a round, 20 in any second, none twice in a round. A node that asks
	// them sends each a datagram. source is one of the Source constants.
	Found func(addrs []netip.AddrPort, source string)
	// OnFailed is told what is wrong with an entry, a line ("FILE:LINE"), the file or the DNS list: once until that
	// changes or an hour has passed. Of the entries of file and DNS list, at most 32 each an hour; Results has all. nil:
	// nobody is told.
	OnFailed func(entry, source, reason string)
	Logger   *slog.Logger // nil: discarded
}

// Result is what is known of an entry, or of the file or the DNS list that has entries. Immutable.
type Result struct {
	Entry  string // as ParseEntry writes it; the file's name; the name that DNS is asked for
	Source string // one of the Source constants
	Addrs  []netip.AddrPort
	Err    string // "": none. "this node itself" is not told to OnFailed
	// Stale: the last try failed, and what an earlier one gave is in use.
	Stale bool
	// LastTried is when it was looked up or read, or, of an address, handed out. Zero: not yet.
	LastTried time.Time
	// LastOK is when that last went well. Zero: never.
	LastOK time.Time
}

// Counters are totals of a Lists.
type Counters struct {
	Rounds    uint64
	Lookups   uint64 // of hosts and record types
	Failures  uint64 // of lookups and of reading the file
	HandedOut uint64 // addresses
	Unfit     uint64 // times that an address was passed over: the node's own, or inside the mesh
}

// Lists finds addresses of members to ask first. Safe for concurrent use.
//
//	Lacking ──▶ round ──▶ due names looked up, all at once ──▶ drawn ──▶ paced ──▶ Found
//	              ▲                                                               │
//	              └── 1, 2, 4, 8, 16 s, then each minute, ±20 %, while Lacking ◀──┘
type Lists struct {
	cfg      Config
	resolver resolver
	wake     chan struct{}

	mu      sync.Mutex
	relink  bool
	results map[resultKey]Result
	count   Counters
}

type resultKey struct{ source, entry string }

// New makes a Lists. Nothing happens before Run.
func New(cfg Config) *Lists {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Lists{cfg: cfg, wake: make(chan struct{}, 1), results: make(map[resultKey]Result), resolver: systemResolver()}
	if len(cfg.Resolvers) > 0 {
		servers := slices.Clone(cfg.Resolvers)
		l.resolver = asking{hosts: true, servers: func() ([]netip.AddrPort, error) { return servers, nil }}
	}
	return l
}

// Wake has Lacking asked at once: the number of connected members, or of members, changed. It may be called at any time
// and does not block. Without it Lacking is asked once a minute while it says no.
func (l *Lists) Wake() {
	select {
	case l.wake <- struct{}{}:
	default: // Run is about to look anyway
	}
}

// LinkChanged has rounds begin at the top if members are lacking, with names that failed looked up at once: the links
// changed. The caller waits for them to settle.
func (l *Lists) LinkChanged() {
	l.mu.Lock()
	l.relink = true
	l.mu.Unlock()
	l.Wake()
}

// Results are what is known of each entry, by source (static, file, dns) and entry.
func (l *Lists) Results() []Result {
	l.mu.Lock()
	all := make([]Result, 0, len(l.results))
	for _, r := range l.results {
		all = append(all, r)
	}
	l.mu.Unlock()
	rank := []string{SourceStatic, SourceFile, SourceDNS}
	slices.SortFunc(all, func(x, y Result) int {
		return cmp.Or(cmp.Compare(slices.Index(rank, x.Source), slices.Index(rank, y.Source)),
			strings.Compare(x.Entry, y.Entry))
	})
	return all
}

// Counters are totals so far.
func (l *Lists) Counters() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Run works until ctx ends, whose error it returns, after all lookups ended. It is called once. With nothing configured
// it waits for the end.
func (l *Lists) Run(ctx context.Context) error {
	r := newLoop(l)
	if r.empty() {
		<-ctx.Done()
		return ctx.Err()
	}
	return r.run(ctx)
}
