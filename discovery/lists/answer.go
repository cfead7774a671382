package lists

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxRecords = 256 // of one answer
	minTTL     = 30 * time.Second
	maxTTL     = time.Hour
	maxChain   = 8 // aliases that are followed within an answer
)

// What a lookup fails with. The words stay the same for the same failure, and go to the user.
var (
	errNoName    = errors.New("no such name (NXDOMAIN)")
	errNoData    = errors.New("the name has no such records")
	errServFail  = errors.New("the DNS server failed (SERVFAIL)")
	errRefused   = errors.New("the DNS server refused (REFUSED)")
	errRcode     = errors.New("the DNS server does not answer such questions")
	errMalformed = errors.New("the DNS answer is malformed, or to another question")
	errSilent    = errors.New("no DNS answer in time")
	errNoServer  = errors.New("no DNS server is known")
	errNone      = errors.New("the list says that there is no member to ask")
)

// isNone reports whether err is a server's word that there is nothing, rather than none.
func isNone(err error) bool { return errors.Is(err, errNoName) || errors.Is(err, errNoData) }

// record is an entry of a DNS list.
type record struct {
	Entry
	priority, weight uint16
	addrs            []netip.Addr // that the answer itself gives for the host; usually none
}

// answer is what a lookup gives. Immutable.
type answer struct {
	records []record      // of a list: at most 256
	addrs   []netip.Addr  // of a host: at most 256
	ttl     time.Duration // 30 s to 1 h
}

// readAnswer takes from a message what it says of a name: records of the type of its question, of the name or of what
// the name is an alias of. It fails with errNoData, or errNone if an SRV record says that there is no service.
func readAnswer(m *dns.Msg) (answer, error) {
	if len(m.Question) != 1 {
		return answer{}, errMalformed
	}
	q := m.Question[0]
	names := chain(m.Answer, q.Name)
	var a answer
	least := uint32(maxTTL / time.Second)
	used, none := 0, false
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Rrtype != q.Qtype || h.Class != dns.ClassINET || !names[strings.ToLower(h.Name)] {
			continue
		}
		used++
		least = min(least, h.Ttl)
		switch rr := rr.(type) {
		case *dns.A:
			a.add(rr.A)
		case *dns.AAAA:
			a.add(rr.AAAA)
		case *dns.SRV:
			none = none || rr.Target == "."
			a.service(rr, m.Extra)
		case *dns.TXT:
			a.text(rr.Txt)
		}
	}
	a.ttl = max(time.Duration(least)*time.Second, minTTL)
	a.trim()
	switch {
	case len(a.records) > 0 || len(a.addrs) > 0:
		return a, nil
	case none:
		return a, errNone
	case used > 0 && q.Qtype == dns.TypeSRV:
		return a, errMalformed
	}
	return a, errNoData
}

// chain is a name with those it is an alias of, in lower case (RFC 1034 §3.6.2).
func chain(rrs []dns.RR, name string) map[string]bool {
	name = strings.ToLower(name)
	names := map[string]bool{name: true}
	for range maxChain {
		next := ""
		for _, rr := range rrs {
			if c, ok := rr.(*dns.CNAME); ok && strings.ToLower(c.Hdr.Name) == name {
				next = strings.ToLower(c.Target)
			}
		}
		if next == "" || names[next] {
			break
		}
		names[next] = true
		name = next
	}
	return names
}

func (a *answer) add(ip []byte) {
	if addr, ok := netip.AddrFromSlice(ip); ok {
		a.addrs = append(a.addrs, addr.Unmap())
	}
}

// service takes an SRV record, with its target's addresses among extra. "." as target means none.
func (a *answer) service(rr *dns.SRV, extra []dns.RR) {
	name, ok := hostName(rr.Target)
	if !ok || rr.Port == 0 || len(a.records) >= 4*maxRecords {
		return
	}
	r := record{Entry: Entry{Host: name, Port: rr.Port}, priority: rr.Priority, weight: rr.Weight}
	var given answer
	for _, x := range extra[:min(len(extra), maxRecords)] {
		if len(given.addrs) == maxPerName {
			break
		}
		if !strings.EqualFold(x.Header().Name, rr.Target) {
			continue
		}
		switch x := x.(type) {
		case *dns.A:
			given.add(x.A)
		case *dns.AAAA:
			given.add(x.AAAA)
		}
	}
	r.addrs = given.addrs
	a.records = append(a.records, r)
}

// text takes the strings of a TXT record, as the DNS package writes them.
func (a *answer) text(strs []string) {
	for _, s := range strs {
		for _, e := range parseTXT(unescape(s), maxRecords) {
			if len(a.records) >= 4*maxRecords {
				return
			}
			a.records = append(a.records, record{Entry: e})
		}
	}
}

// trim drops duplicates and, of too much, what would be asked last.
func (a *answer) trim() {
	a.records = order(unique(a.records))
	a.records = a.records[:min(len(a.records), maxRecords)]
	a.addrs = a.addrs[:min(len(a.addrs), maxRecords)]
}

// unique leaves the first of records with the same entry.
func unique(all []record) []record {
	seen := make(map[Entry]bool)
	return slices.DeleteFunc(all, func(r record) bool {
		again := seen[r.Entry]
		seen[r.Entry] = true
		return again
	})
}

// order sorts records by priority, and those of one priority at random by weight: RFC 2782, "Weight".
func order(all []record) []record {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	// Those without weight come first, for a small chance when there is weight elsewhere.
	slices.SortStableFunc(all, func(x, y record) int {
		return cmp.Or(cmp.Compare(x.priority, y.priority), cmp.Compare(min(x.weight, 1), min(y.weight, 1)))
	})
	for rest := all; len(rest) > 0; {
		n, sum := 0, 0
		for n < len(rest) && rest[n].priority == rest[0].priority {
			sum += int(rest[n].weight)
			n++
		}
		at, running := 0, int(rest[0].weight)
		for limit := rand.IntN(sum + 1); running < limit; running += int(rest[at].weight) {
			at++
		}
		chosen := rest[at]
		copy(rest[1:], rest[:at])
		rest[0] = chosen
		rest = rest[1:]
	}
	return all
}

// parseTXT reads "a=host:port" among what else a TXT string says: key=value pairs with spaces between, values quoted or
// not. Keys are compared without case; what is no entry is skipped. At most limit are returned.
func parseTXT(s string, limit int) []Entry {
	var all []Entry
	for len(s) > 0 && len(all) < limit {
		var pair string
		pair, s = cutPair(strings.TrimLeft(s, " \t"))
		key, value, ok := strings.Cut(pair, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(key), "a") {
			continue
		}
		if e, err := ParseEntry(strings.ReplaceAll(value, `"`, "")); err == nil {
			all = append(all, e)
		}
	}
	return all
}

// cutPair cuts at the first space outside quotes.
func cutPair(s string) (pair, rest string) {
	quoted := false
	for i, c := range []byte(s) {
		switch {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t'):
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// unescape undoes the DNS package's way to write a string: \" and \\, and \DDD for bytes (RFC 1035 §5.1).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		if i+3 < len(s) && digit(s[i+1]) && digit(s[i+2]) && digit(s[i+3]) {
			b.WriteByte((s[i+1]-'0')*100 + (s[i+2]-'0')*10 + s[i+3] - '0')
			i += 3
			continue
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
