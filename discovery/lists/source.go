package lists

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// service is what a DNS list is called, before the name.
const service = "_meshnet._udp."

// errName is what ParseName fails with.
var errName = errors.New("not a domain name")

// ParseName reads the domain name of a DNS list, with or without "_meshnet._udp." before it. Other letters than
// ASCII are to be written as in DNS ("xn--…"). It returns the name that is asked for.
func ParseName(s string) (string, error) {
	s = strings.TrimPrefix(strings.ToLower(strings.TrimSpace(s)), service)
	name, ok := hostName(s)
	if !ok || len(service+name) > 253 {
		return "", errName
	}
	return service + name, nil
}

// fileSource is the file, with what was read of it last. Owned by a loop.
type fileSource struct {
	name      string // "": none
	mark      fileMark
	busy      bool
	said      fileList
	err       error // why it was not read, or what of it is of no use
	tried, ok time.Time
	targets   []*target
}

// took takes what was read. It reports whether the entries are new ones.
func (f *fileSource) took(now time.Time, text string, mark fileMark, err error) bool {
	f.busy, f.tried = false, now
	if err != nil {
		f.err = err
		return false
	}
	f.ok = now
	if mark == f.mark {
		f.err = f.said.complaint()
		return false
	}
	f.mark, f.said = mark, parseFile(text)
	f.err = f.said.complaint()
	f.targets = keep(kindFile, f.targets, f.said.entries)
	return true
}

// result is the file as Results has it.
func (f *fileSource) result() Result {
	r := Result{Entry: f.name, Source: SourceFile, LastTried: f.tried, LastOK: f.ok}
	if f.err != nil {
		r.Err = f.err.Error()
		r.Stale = f.tried != f.ok && len(f.targets) > 0
	}
	return r
}

// half is one of the two record types of a DNS list. Owned by a loop.
type half struct {
	qtype   uint16
	records []record // also when the last lookup failed
	asked   bool     // a lookup ended
	busy    bool
	fails   int
	due     time.Time
	err     error
}

func (h *half) took(now time.Time, a answer, err error) {
	h.busy, h.asked, h.err = false, true, err
	switch {
	case err == nil || errors.Is(err, errNone):
		h.records, h.fails, h.due = a.records, 0, now.Add(max(a.ttl, minTTL))
	default:
		h.due = now.Add(backoff(h.fails))
		h.fails++
	}
}

// listSource is the DNS list. Owned by a loop.
type listSource struct {
	name      string // as it is asked for; "": none
	halves    [2]half
	tried, ok time.Time
	records   []record // of both
	targets   []*target
	known     map[Entry]*target
}

func newListSource(name string) listSource {
	return listSource{name: name, halves: [2]half{{qtype: dns.TypeSRV}, {qtype: dns.TypeTXT}}}
}

// took takes the result of a half's lookup, and makes the entries of both anew.
func (l *listSource) took(now time.Time, h *half, a answer, err error) {
	h.took(now, a, err)
	l.tried = now
	if err == nil || errors.Is(err, errNone) {
		l.ok = now
	}
	// That there are none of one type is a failure only if there are none of the other either.
	x, y := &l.halves[0], &l.halves[1]
	for _, h := range [][2]*half{{x, y}, {y, x}} {
		if isNone(h[0].err) && h[1].asked && (h[1].err == nil || errors.Is(h[1].err, errNone)) {
			h[0].records = nil
		}
	}
	l.records = append(l.records[:0], x.records...)
	for _, r := range y.records {
		if len(x.records) > 0 {
			r.priority = x.records[0].priority // a plain list is as good as the best
		}
		l.records = append(l.records, r)
	}
	l.records = order(unique(l.records))
	l.records = l.records[:min(len(l.records), maxRecords)]
	entries := make([]Entry, 0, len(l.records))
	for _, r := range l.records {
		entries = append(entries, r.Entry)
	}
	l.targets = keep(kindList, l.targets, entries)
	l.known = make(map[Entry]*target)
	for i, t := range l.targets {
		l.known[t.Entry] = t
		if given := l.records[i].addrs; len(given) > 0 && h == x && err == nil && !t.busy {
			t.took(now, answer{addrs: given, ttl: max(a.ttl, minTTL)}, nil)
		}
	}
}

// round are the targets of a round, of which n were before: of n+1 priorities, in the order to ask them.
func (l *listSource) round(n int) []*target {
	var all []*target
	groups := 0
	records := order(slices.Clone(l.records))
	for i, r := range records {
		if i == 0 || r.priority != records[i-1].priority {
			groups++
		}
		if groups > n+1 {
			break
		}
		all = append(all, l.known[r.Entry])
	}
	return all
}

// err says what is wrong with the list, or nothing; settled is false while an answer is missing.
func (l *listSource) err() (err error, settled bool) {
	x, y := &l.halves[0], &l.halves[1]
	if !x.asked || !y.asked {
		return nil, false
	}
	hard := func(h *half) bool { return h.err != nil && !isNone(h.err) && !errors.Is(h.err, errNone) }
	switch {
	case hard(x) && hard(y) && x.err.Error() != y.err.Error():
		return fmt.Errorf("SRV: %w; TXT: %w", x.err, y.err), true
	case hard(x) && hard(y):
		return x.err, true
	case hard(x):
		return fmt.Errorf("SRV: %w", x.err), true
	case hard(y):
		return fmt.Errorf("TXT: %w", y.err), true
	case x.err != nil && y.err != nil:
		return x.err, true
	}
	return nil, true
}

// result is the list as Results has it.
func (l *listSource) result() Result {
	r := Result{Entry: l.name, Source: SourceDNS, LastTried: l.tried, LastOK: l.ok}
	if err, _ := l.err(); err != nil {
		r.Err = err.Error()
		r.Stale = len(l.targets) > 0
	}
	return r
}

// keep makes targets of entries, with what is known of those that stay.
func keep(k kind, old []*target, entries []Entry) []*target {
	had := make(map[Entry]*target)
	for _, t := range old {
		t.gone = true
		had[t.Entry] = t
	}
	all := make([]*target, 0, len(entries))
	for _, e := range entries {
		t := had[e]
		if t == nil {
			t = newTarget(k, e)
		}
		t.gone = false
		all = append(all, t)
	}
	return all
}

// oldest are the targets to look up now: those that waited longest, at most limit with those under way.
func oldest(now time.Time, targets []*target, limit int) []*target {
	var all []*target
	for _, t := range targets {
		if t.busy {
			limit--
		}
		if t.wants(now) {
			all = append(all, t)
		}
	}
	slices.SortStableFunc(all, func(x, y *target) int { return x.tried.Compare(y.tried) })
	return all[:max(min(len(all), limit), 0)]
}
