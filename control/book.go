package control

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	maxGood      = 8   // good endpoints kept for a node
	goodRefresh  = 600 // seconds after which the time of a success is written anew
	firstBackoff = time.Second
	maxBackoff   = time.Minute
	backoffTimes = 1.5
)

// good is an endpoint that once answered.
type good struct {
	Addr []byte `cbor:"0,keyasint"` // as in a Reach
	Last uint64 `cbor:"1,keyasint"` // unix seconds of the last success
}

// bookEntry is what is remembered of reaching one node.
type bookEntry struct {
	Node        identity.PeerID `cbor:"0,keyasint"`
	Good        []good          `cbor:"1,keyasint,omitempty"`
	Attempts    uint64          `cbor:"2,keyasint"`
	Failed      uint64          `cbor:"3,keyasint"` // in a row
	LastSuccess uint64          `cbor:"4,keyasint"` // unix seconds
	Persistent  bool            `cbor:"5,keyasint"` // of the bootstrap set

	backoff time.Duration
	next    time.Time // no dial before
	full    time.Time // it has no room for a session until then
	shun    time.Time // the ring looks for somebody else until then
	place   int       // in the book's queue, from 1; 0: not in it
}

// blank reports whether there is nothing worth a line on disk.
func (e *bookEntry) blank() bool {
	return len(e.Good) == 0 && e.Attempts == 0 && e.Failed == 0 && e.LastSuccess == 0 && !e.Persistent
}

// book is the address book. It is pure; Mesh guards it.
type book struct {
	entries map[identity.PeerID]*bookEntry
	queue   dialQueue // who is to be dialled
	changed bool
}

func newBook() *book { return &book{entries: make(map[identity.PeerID]*bookEntry)} }

func (b *book) entry(id identity.PeerID) *bookEntry {
	e := b.entries[id]
	if e == nil {
		e = &bookEntry{Node: id}
		b.entries[id] = e
	}
	return e
}

// want lines a node up for its next dial, once.
func (b *book) want(id identity.PeerID) { b.queue.add(b.entry(id)) }

// take takes the node that waits longest out of the line, if its backoff is over: who was never tried, or was just
// heard of, has waited for ever.
func (b *book) take(now time.Time) (id identity.PeerID, ok bool) {
	next, any := b.nextDial()
	if !any || now.Before(next) {
		return id, false
	}
	return b.queue.take().Node, true
}

// nextDial is when the first in the line may be dialled; the zero time: at once. It is false for an empty line.
func (b *book) nextDial() (time.Time, bool) {
	if len(b.queue) == 0 {
		return time.Time{}, false
	}
	return b.queue[0].next, true
}

// dialed notes how a dial went. After a failure the wait grows by half each time, up to a minute, with a jitter of a
// fifth on top; members are dialled for ever.
func (b *book) dialed(now time.Time, id identity.PeerID, ok bool, jitter float64) {
	e := b.entry(id)
	e.Attempts++
	b.changed = true
	defer b.queue.moved(e)
	if ok {
		e.Failed, e.backoff, e.next, e.shun, e.LastSuccess = 0, 0, time.Time{}, time.Time{}, unixSeconds(now)
		return
	}
	e.Failed++
	if e.backoff == 0 {
		e.backoff = firstBackoff
	} else {
		e.backoff = min(time.Duration(float64(e.backoff)*backoffTimes), maxBackoff)
	}
	e.next = now.Add(e.backoff + time.Duration(float64(e.backoff)*jitter/5))
	if e.Failed >= shunAfter {
		e.shun = e.next.Add(time.Duration((0.5 + jitter) * float64(shunFor)))
	}
}

// nudge ends the backoff of a node that the book knows: something was heard of it.
func (b *book) nudge(id identity.PeerID) {
	if e := b.entries[id]; e != nil {
		e.backoff, e.next, e.shun = 0, time.Time{}, time.Time{}
		b.queue.moved(e)
	}
}

// worked notes an endpoint that answered. The one used last comes first. It reports whether there are others than before
// now; their order does not matter.
func (b *book) worked(now time.Time, id identity.PeerID, addr netip.AddrPort) bool {
	if addr.Addr().Zone() != "" || addr.Addr().IsLoopback() {
		return false // means something else on another link or host
	}
	e := b.entry(id)
	raw := encodeEndpoint(addr)
	if len(e.Good) > 0 && slices.Equal(e.Good[0].Addr, raw) && unixSeconds(now) < e.Good[0].Last+goodRefresh {
		return false // nothing worth a write
	}
	known := len(e.Good)
	e.Good = slices.DeleteFunc(e.Good, func(g good) bool { return slices.Equal(g.Addr, raw) })
	fresh := len(e.Good) == known
	e.Good = slices.Insert(e.Good, 0, good{raw, unixSeconds(now)})
	e.Good = e.Good[:min(len(e.Good), maxGood)]
	b.changed = true
	return fresh
}

// addrs are the endpoints that once answered, the last one first.
func (b *book) addrs(id identity.PeerID) []netip.AddrPort {
	e := b.entries[id]
	if e == nil {
		return nil
	}
	var all []netip.AddrPort
	for _, g := range e.Good {
		if a, err := parseEndpoint(g.Addr); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// lately are up to n nodes with which a session came about, the last ones first.
func (b *book) lately(n int) []identity.PeerID {
	var known []*bookEntry
	for _, e := range b.entries {
		if e.LastSuccess > 0 {
			known = append(known, e)
		}
	}
	slices.SortFunc(known, func(x, y *bookEntry) int {
		return cmp.Or(cmp.Compare(y.LastSuccess, x.LastSuccess), x.Node.Compare(y.Node))
	})
	var ids []identity.PeerID
	for _, e := range known[:min(len(known), n)] {
		ids = append(ids, e.Node)
	}
	return ids
}

// forget drops a node that is no member any more.
func (b *book) forget(id identity.PeerID) {
	if e := b.entries[id]; e != nil {
		b.queue.remove(e)
		delete(b.entries, id)
		b.changed = true
	}
}

// bookFile is the book on disk.
type bookFile struct {
	Entries []bookEntry `cbor:"0,keyasint"`
}

func (b *book) file() *bookFile {
	known := 0
	for _, e := range b.entries {
		if !e.blank() {
			known++
		}
	}
	f := &bookFile{Entries: make([]bookEntry, 0, known)}
	for _, e := range b.entries {
		if !e.blank() {
			f.Entries = append(f.Entries, *e)
		}
	}
	slices.SortFunc(f.Entries, func(x, y bookEntry) int { return x.Node.Compare(y.Node) })
	return f
}

func (f *bookFile) book() *book {
	b := newBook()
	for _, e := range f.Entries {
		b.entries[e.Node] = &e
	}
	return b
}

func unixSeconds(t time.Time) uint64 { return uint64(max(0, t.Unix())) }
