package lists

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// names is a resolver that answers from memory. Names without an answer are silent.
type names struct {
	mu    sync.Mutex
	said  map[string]said // by host, or by SRV or TXT
	asked map[string]int
}

type said struct {
	answer
	err   error
	after time.Duration
}

func (n *names) say(name string, s said) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.said == nil {
		n.said = make(map[string]said)
	}
	n.said[name] = s
}

func (n *names) times(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[name]
}

func (n *names) lookUp(ctx context.Context, name string) (answer, error) {
	n.mu.Lock()
	if n.asked == nil {
		n.asked = make(map[string]int)
	}
	n.asked[name]++
	s, ok := n.said[name]
	n.mu.Unlock()
	if !ok {
		s = said{err: errSilent, after: lookupLimit}
	}
	select {
	case <-time.After(s.after):
		return s.answer, s.err
	case <-ctx.Done():
		return answer{}, errSilent
	}
}

func (n *names) host(ctx context.Context, name string) (answer, error) { return n.lookUp(ctx, name) }

func (n *names) list(ctx context.Context, _ string, qtype uint16) (answer, error) {
	return n.lookUp(ctx, dns.TypeToString[qtype])
}

func hosts(ttl time.Duration, addrs ...string) said {
	a := answer{ttl: ttl}
	for _, s := range addrs {
		a.addrs = append(a.addrs, netip.MustParseAddr(s))
	}
	return said{answer: a}
}

func listed(t *testing.T, ttl time.Duration, entries ...string) said {
	t.Helper()
	a := answer{ttl: ttl}
	for _, s := range entries {
		e, err := ParseEntry(s)
		if err != nil {
			t.Fatal(err)
		}
		a.records = append(a.records, record{Entry: e})
	}
	return said{answer: a}
}

// hit is an address that was handed out.
type hit struct {
	addr   netip.AddrPort
	source string
	at     time.Duration // since the start
}

// run is a Lists under way in a bubble, with what came of it.
type run struct {
	*Lists
	names
	start  time.Time
	mu     sync.Mutex
	enough bool
	hits   []hit
	failed []string
}

// begin runs lists in the bubble of a test.
func begin(t *testing.T, cfg Config) *run {
	t.Helper()
	r := &run{start: time.Now()}
	cfg.Found = func(addrs []netip.AddrPort, source string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, a := range addrs {
			r.hits = append(r.hits, hit{a, source, time.Since(r.start)})
		}
	}
	cfg.OnFailed = func(entry, source, reason string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed = append(r.failed, source+" "+entry+": "+reason)
	}
	cfg.Lacking = func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.enough
	}
	r.Lists = New(cfg)
	r.resolver = &r.names
	return r
}

// goOn starts it. It ends with the test.
func (r *run) goOn(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != context.Canceled {
			t.Errorf("Run returns %v", err)
		}
	})
	synctest.Wait()
}

// wait lets time pass, and takes what was handed out and what failed meanwhile.
func (r *run) wait(d time.Duration) ([]hit, []string) {
	time.Sleep(d)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	hits, failed := r.hits, r.failed
	r.hits, r.failed = nil, nil
	return hits, failed
}

func (r *run) connect(yes bool) {
	r.mu.Lock()
	r.enough = yes
	r.mu.Unlock()
	r.Wake()
	synctest.Wait()
}

func addrsOf(hits []hit) string {
	var all []string
	for _, h := range hits {
		all = append(all, h.addr.String())
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

func (r *run) result(t *testing.T, entry string) Result {
	t.Helper()
	for _, x := range r.Results() {
		if x.Entry == entry {
			return x
		}
	}
	t.Fatalf("no result of %s in %+v", entry, r.Results())
	return Result{}
}

// A dead entry delays nobody: what others give is handed out at once.
func TestDeadEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{Entries: []string{"dead:7", "gone:7", "good:7", "192.0.2.9:7", "bad:0", "GOOD:7"}})
		r.say("gone", said{err: errNoName})
		r.say("good", said{answer: hosts(time.Minute, "192.0.2.1", "192.0.2.2", "2001:db8::1").answer, after: 20 * time.Millisecond})
		r.goOn(t)
		hits, failed := r.wait(790 * time.Millisecond) // the second round is after 800 ms at the soonest
		want := []hit{
			{ap("192.0.2.9:7"), "static", 0},
			{ap("[2001:db8::1]:7"), "static", 20 * time.Millisecond},
			{ap("192.0.2.1:7"), "static", 270 * time.Millisecond},
			{ap("192.0.2.2:7"), "static", 520 * time.Millisecond},
		}
		if !slices.Equal(hits, want) {
			t.Errorf("handed out %v, want %v", hits, want)
		}
		if got := strings.Join(failed, "\n"); got != "static bad:0: "+errPort.Error()+"\nstatic gone:7: "+errNoName.Error() {
			t.Errorf("failed:\n%s", got)
		}
		_, failed = r.wait(30 * time.Second)
		if got := strings.Join(failed, "\n"); got != "static dead:7: "+errSilent.Error() {
			t.Errorf("failed:\n%s", got)
		}
		if x := r.result(t, "good:7"); len(x.Addrs) != 3 || x.Err != "" || x.LastOK.IsZero() || x.Stale {
			t.Errorf("good: %+v", x)
		}
		if x := r.result(t, "dead:7"); x.Err == "" || x.LastTried.IsZero() || !x.LastOK.IsZero() || x.Stale {
			t.Errorf("dead: %+v", x)
		}
		if x := r.result(t, "192.0.2.9:7"); x.Err != "" || x.LastOK.IsZero() {
			t.Errorf("literal: %+v", x)
		}
	})
}

// Rounds are at 0, 1, 3, 7, 15 and 31 s and then each minute, while members are lacking.
func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{Entries: []string{"192.0.2.1:7"}})
		r.goOn(t)
		hits, _ := r.wait(10 * time.Minute)
		for i, wait := range []time.Duration{1, 2, 4, 8, 16, 60, 60, 60} {
			got, want := hits[i+1].at-hits[i].at, wait*time.Second
			if got < want*8/10 || got > want*12/10 {
				t.Errorf("round %d comes after %v, want %v", i+1, got, want)
			}
		}
		r.connect(true)
		if hits, _ := r.wait(time.Hour); len(hits) > 0 {
			t.Errorf("%d rounds while connected", len(hits))
		}
		r.connect(false)
		if hits, _ := r.wait(2500 * time.Millisecond); len(hits) < 2 || hits[0].at != time.Hour+10*time.Minute {
			t.Errorf("after the connection %v", hits)
		}
		r.wait(5 * time.Minute)
		r.LinkChanged()
		if hits, _ := r.wait(2500 * time.Millisecond); len(hits) < 2 {
			t.Errorf("after the links changed %v", hits)
		}
		for range 100 { // neither does noise bring rounds
			r.Wake()
			r.connect(true)
			r.connect(false)
		}
		if hits, _ := r.wait(0); len(hits) > 1 {
			t.Errorf("%d rounds at once", len(hits))
		}
		if c := r.Counters(); c.Rounds < 15 || c.HandedOut < 15 {
			t.Errorf("counters %+v", c)
		}
	})
}

// Without Wake it looks once a minute.
func TestLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{Entries: []string{"192.0.2.1:7"}})
		r.enough = true
		r.goOn(t)
		r.wait(time.Hour)
		r.mu.Lock()
		r.enough = false
		r.mu.Unlock()
		if hits, _ := r.wait(time.Minute); len(hits) == 0 {
			t.Error("no round within a minute")
		}
	})
}

// The node itself, the inside of the mesh, the loopback, duplicates, and what is no address are not handed out.
func TestPoisoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "members")
		if err := os.WriteFile(name, []byte("192.0.2.1:7\n127.0.0.1:9\n100.64.0.2:7\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := begin(t, Config{
			Entries: []string{"192.0.2.1:7", "127.0.0.1:8", "self:7", "trap:7", "localhost:7", "100.64.0.1:7"},
			File:    name, DNS: "example.org",
			Own: func() []netip.AddrPort { return []netip.AddrPort{ap("[::ffff:192.0.2.66]:7")} },
			Refused: func(a netip.Addr) bool {
				return netip.MustParsePrefix("100.64.0.0/10").Contains(a)
			},
		})
		r.say("self", hosts(time.Minute, "192.0.2.66"))
		r.say("trap", hosts(time.Minute, "127.0.0.1", "224.0.0.1"))
		r.say("localhost", hosts(time.Minute, "127.0.0.1"))
		r.say("rebind.", hosts(time.Minute, "::1", "100.64.0.3", "255.255.255.255", "192.0.2.2"))
		r.say("SRV", said{err: errNoData})
		r.say("TXT", listed(t, time.Minute, "127.0.0.1:10", "192.0.2.66:7", "192.0.2.66:8", "192.0.2.1:7", "224.0.0.1:7", "rebind:7"))
		r.goOn(t)
		hits, failed := r.wait(790 * time.Millisecond)
		if got, want := addrsOf(hits), "127.0.0.1:7 127.0.0.1:8 127.0.0.1:9 192.0.2.1:7 192.0.2.2:7 192.0.2.66:8"; got != want || len(hits) != 6 {
			t.Errorf("handed out %v, want %s", hits, want)
		}
		slices.Sort(failed)
		want := []string{
			"dns 127.0.0.1:10: " + errLoopback.Error(),
			"dns 224.0.0.1:7: " + errNotUnicast.Error(),
			"file 100.64.0.2:7: " + errInside.Error(),
			"static 100.64.0.1:7: " + errInside.Error(),
			"static trap:7: " + errLoopback.Error(),
		}
		if !slices.Equal(failed, want) {
			t.Errorf("failed:\n%s\nwant:\n%s", strings.Join(failed, "\n"), strings.Join(want, "\n"))
		}
		if x := r.result(t, "self:7"); x.Err != errSelf.Error() {
			t.Errorf("self: %+v", x)
		}
	})
}

// 10 000 bogus entries, in a file and in DNS, cost bounded work, and the user's entries come first in every round.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		var entries []string
		for i := range 10_000 {
			fmt.Fprintf(&text, "10.1.%d.%d:7\nh%d.example:7\n", i>>8, i&255, i)
			entries = append(entries, fmt.Sprintf("10.2.%d.%d:7", i>>8, i&255))
		}
		name := filepath.Join(t.TempDir(), "members")
		if err := os.WriteFile(name, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		r := begin(t, Config{Entries: []string{"192.0.2.1:7", "good:7"}, File: name, DNS: "example.org"})
		r.say("good", hosts(30*time.Second, "192.0.2.2"))
		r.say("SRV", said{err: errNoName})
		r.say("TXT", listed(t, time.Minute, entries[:maxRecords]...))
		r.goOn(t)
		hits, failed := r.wait(20 * time.Minute)
		if len(failed) > 1+2*perSource { // the file, and names in it
			t.Errorf("%d failures told", len(failed))
		}
		seen := make(map[netip.AddrPort]int)
		perSecondMost, rounds, begun := 0, 0, 0
		for i, h := range hits {
			seen[h.addr]++
			n := 0
			for j := i; j < len(hits) && hits[j].at < h.at+time.Second; j++ {
				n++
			}
			perSecondMost = max(perSecondMost, n)
			if h.addr == ap("192.0.2.1:7") {
				rounds++
				if i-begun > perRound {
					t.Errorf("round %d hands out %d", rounds, i-begun)
				}
				begun = i
			}
		}
		if perSecondMost > perSecond {
			t.Errorf("%d in a second", perSecondMost)
		}
		if c := r.Counters(); len(hits) > perRound*int(c.Rounds) || rounds != int(c.Rounds) || c.Lookups > 70*c.Rounds {
			t.Errorf("%d handed out, %d of the user's, %+v", len(hits), rounds, c)
		}
		if n := seen[ap("192.0.2.2:7")]; n != rounds {
			t.Errorf("a name of the user's was handed out %d times in %d rounds", n, rounds)
		}
		file, list := 0, 0
		for a := range seen {
			switch a.Addr().As4()[1] {
			case 1:
				file++
			case 2:
				list++
			}
		}
		if file != 512 || list != maxRecords {
			t.Errorf("%d of the file's 512 addresses had a turn, %d of the list's %d", file, list, maxRecords)
		}
		if n := len(r.Results()); n > 2+1+maxEntries+1+maxRecords {
			t.Errorf("%d results", n)
		}
	})
}

// A DNS list that fails in any way keeps what it gave before, and says so once.
func TestListFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const list = "_meshnet._udp.example.org"
		r := begin(t, Config{DNS: "Example.org."})
		srv := listed(t, time.Second, "a.example:7", "b.example:7")
		srv.records[1].priority = 9
		srv.records[0].addrs = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		r.say("SRV", srv)
		r.say("TXT", listed(t, time.Minute, "192.0.2.3:7"))
		r.say("b.example.", hosts(time.Minute, "192.0.2.2"))
		r.goOn(t)
		hits, _ := r.wait(790 * time.Millisecond)
		if got := addrsOf(hits); got != "192.0.2.1:7 192.0.2.3:7" {
			t.Errorf("first %s, want the best priority and TXT", got)
		}
		hits, failed := r.wait(time.Second)
		if got := addrsOf(hits); got != "192.0.2.1:7 192.0.2.2:7 192.0.2.3:7" || len(failed) > 0 {
			t.Errorf("then %s, failed %q", got, failed)
		}
		r.wait(time.Minute)
		for _, err := range []error{errServFail, errNoName, errMalformed, errSilent} {
			r.say("SRV", said{err: err})
			r.say("TXT", said{err: err})
			hits, failed := r.wait(5 * time.Minute)
			if got := addrsOf(hits); got != "192.0.2.1:7 192.0.2.2:7 192.0.2.3:7" {
				t.Errorf("%v: handed out %s", err, got)
			}
			found := 0
			for _, f := range failed {
				if f == "dns "+list+": "+err.Error()+"; what was known before is in use" {
					found++
				}
			}
			if found != 1 || len(failed) > 3 { // between, one half may already fail otherwise; a.example. is silent
				t.Errorf("%v: failed %q", err, failed)
			}
			if x := r.result(t, list); !x.Stale || x.Err != err.Error() {
				t.Errorf("%v: %+v", err, x)
			}
		}
		if _, failed := r.wait(2 * time.Hour); len(failed) < 2 || len(failed) > 6 {
			t.Errorf("failed again %q", failed)
		}
		r.say("SRV", said{err: errNone})
		r.say("TXT", said{err: errNoData})
		r.wait(3 * time.Minute)
		hits, _ = r.wait(5 * time.Minute)
		if len(hits) > 0 || len(r.Results()) != 1 || r.result(t, list).Err != errNone.Error() {
			t.Errorf("there are none: handed out %v, results %+v", hits, r.Results())
		}
		r.say("SRV", said{err: errNoData})
		r.say("TXT", listed(t, time.Hour, "192.0.2.4:7"))
		r.wait(time.Hour + 2*time.Minute)
		before := r.times("TXT")
		hits, _ = r.wait(30 * time.Minute)
		if got := addrsOf(hits); got != "192.0.2.4:7" || r.result(t, list).Err != "" {
			t.Errorf("anew: handed out %s, %+v", got, r.result(t, list))
		}
		if n := r.times("TXT") - before; n > 1 {
			t.Errorf("asked %d times in half an hour for what lives one", n)
		}
	})
}

// One half that fails does not hold up the other, and what both say is used.
func TestListHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{DNS: "example.org"})
		r.say("TXT", listed(t, time.Minute, "192.0.2.3:7"))
		r.goOn(t)
		hits, failed := r.wait(100 * time.Millisecond)
		if addrsOf(hits) != "192.0.2.3:7" || len(failed) > 0 {
			t.Errorf("handed out %v, failed %q", hits, failed)
		}
		_, failed = r.wait(10 * time.Minute)
		if len(failed) != 1 || failed[0] != "dns _meshnet._udp.example.org: SRV: "+errSilent.Error()+"; what was known before is in use" {
			t.Errorf("failed %q", failed)
		}
	})
}

// A host that moves is found at its new address; one whose name fails is asked at the old one.
func TestHostMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{Entries: []string{"h:7"}})
		r.say("h", hosts(time.Second*90, "192.0.2.1"))
		r.goOn(t)
		r.wait(time.Minute)
		if n := r.times("h"); n != 1 {
			t.Errorf("looked up %d times within its time to live", n)
		}
		r.say("h", hosts(time.Minute, "192.0.2.2"))
		r.wait(3 * time.Minute)
		if hits, _ := r.wait(5 * time.Minute); addrsOf(hits) != "192.0.2.2:7" {
			t.Errorf("handed out %v", hits)
		}
		r.say("h", said{err: errServFail})
		r.wait(3 * time.Minute)
		if hits, _ := r.wait(3 * time.Minute); addrsOf(hits) != "192.0.2.2:7" || !r.result(t, "h:7").Stale {
			t.Errorf("handed out %v, %+v", hits, r.result(t, "h:7"))
		}
	})
}

func TestFileChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "members")
		r := begin(t, Config{File: name})
		r.goOn(t)
		if hits, failed := r.wait(time.Minute); len(hits) > 0 || len(failed) != 1 || !strings.HasPrefix(failed[0], "file "+name+": ") {
			t.Errorf("no file: handed out %v, failed %q", hits, failed)
		}
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("192.0.2.1:7\n# good\noops:x\n192.0.2.2:7\n")
		if hits, failed := r.wait(2 * time.Minute); addrsOf(hits) != "192.0.2.1:7 192.0.2.2:7" ||
			len(failed) != 1 || failed[0] != "file "+name+":3: "+errPort.Error() {
			t.Errorf("a bad line: handed out %v, failed %q", hits, failed)
		}
		if x := r.result(t, name); x.Err != "1 bad lines, the first is line 3: "+errPort.Error() || x.Stale {
			t.Errorf("result %+v", x)
		}
		write("192.0.2.3:7\n")
		r.wait(time.Minute + 15*time.Second)
		if hits, failed := r.wait(3 * time.Minute); addrsOf(hits) != "192.0.2.3:7" || len(failed) > 0 {
			t.Errorf("changed: handed out %v, failed %q", hits, failed)
		}
		if n := len(r.Results()); n != 2 {
			t.Errorf("results %+v", r.Results())
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if hits, failed := r.wait(3 * time.Minute); addrsOf(hits) != "192.0.2.3:7" || len(failed) != 1 || !r.result(t, name).Stale {
			t.Errorf("gone: handed out %v, failed %q", hits, failed)
		}
	})
}

// Nothing configured costs nothing, and it ends when told to.
func TestNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{})
		r.goOn(t)
		if hits, failed := r.wait(time.Hour); len(hits)+len(failed) > 0 || r.Counters() != (Counters{}) {
			t.Errorf("handed out %v, failed %q", hits, failed)
		}
	})
}

func TestFailuresNews(t *testing.T) {
	now := time.Unix(1000, 0)
	var f failures
	key := resultKey{"static", "a:1"}
	for i, tt := range []struct {
		after  time.Duration
		reason string
		want   bool
	}{
		{0, "x", true},
		{time.Minute, "x", false},
		{time.Minute, "y", true},
		{time.Minute, "x", true},
		{59 * time.Minute, "x", false},
		{time.Minute, "x", true},
	} {
		now = now.Add(tt.after)
		if got := f.news(now, key, tt.reason, false); got != tt.want {
			t.Errorf("case %d: news %v, want %v", i, got, tt.want)
		}
	}
	f.over(key)
	if !f.news(now, key, "x", false) {
		t.Error("a failure after a success is no news")
	}
	told := 0
	for i := range 1000 {
		if f.news(now, resultKey{"dns", fmt.Sprint(i)}, "x", true) {
			told++
		}
	}
	if told != perSource {
		t.Errorf("%d told, want %d", told, perSource)
	}
}
