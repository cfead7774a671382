package lists

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const listName = "_meshnet._udp.example.org."

// message is an answer with records, as zone files write them.
func message(t testing.TB, name string, qtype uint16, records ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.Response = true
	for _, s := range records {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

func TestReadAnswerSRV(t *testing.T) {
	m := message(t, listName, dns.TypeSRV,
		listName+" 300 IN SRV 20 0 1 Late.example.org.",
		listName+" 90 IN SRV 10 5 41820 a.example.org.",
		listName+" 300 IN SRV 10 5 41820 A.example.org.", // again
		listName+" 300 IN SRV 10 5 0 zero.example.org.",
		listName+" 1 IN TXT \"a=192.0.2.9:9\"", // not asked for
		"other.example.org. 1 IN SRV 1 1 1 other.example.org.")
	for _, s := range []string{"A.EXAMPLE.ORG. 60 IN A 192.0.2.1", "a.example.org. 60 IN AAAA 2001:db8::1", "b. 60 IN A 192.0.2.2"} {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		m.Extra = append(m.Extra, rr)
	}
	a, err := readAnswer(m)
	if err != nil || len(a.records) != 2 || a.ttl != 90*time.Second {
		t.Fatalf("answer %+v, %v", a, err)
	}
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	if r := a.records[0]; r.Host != "a.example.org" || r.Port != 41820 || r.priority != 10 || !slices.Equal(r.addrs, want) {
		t.Errorf("first %+v", r)
	}
	if r := a.records[1]; r.Host != "late.example.org" || r.priority != 20 || r.addrs != nil {
		t.Errorf("second %+v", r)
	}
}

func TestReadAnswer(t *testing.T) {
	for _, tt := range []struct {
		name    string
		qtype   uint16
		records []string
		want    string
		ttl     time.Duration
		err     error
	}{
		{"none", dns.TypeSRV, nil, "", 0, errNoData},
		{"no service", dns.TypeSRV, []string{listName + " 60 IN SRV 0 0 0 ."}, "", 0, errNone},
		{"of no use", dns.TypeSRV, []string{listName + " 60 IN SRV 0 0 0 a."}, "", 0, errMalformed},
		{
			"alias", dns.TypeTXT,
			[]string{listName + " 40 IN CNAME l.example.net.", "L.example.net. 50 IN TXT \"a=h:1\""},
			"h:1", 50 * time.Second, nil,
		},
		{"alias in a circle", dns.TypeTXT, []string{listName + " 40 IN CNAME b.", "b. 1 IN CNAME " + listName}, "", 0, errNoData},
		{"short", dns.TypeTXT, []string{listName + " 0 IN TXT \"a=h:1\""}, "h:1", minTTL, nil},
		{"for ever", dns.TypeTXT, []string{listName + " 4294967295 IN TXT \"a=h:1\""}, "h:1", maxTTL, nil},
		{"strings", dns.TypeTXT, []string{listName + ` 60 IN TXT "a=h:1" "v=1" "A=[2001:db8::1]:2 a=192.0.2.1"`}, "192.0.2.1:41820 [2001:db8::1]:2 h:1", time.Minute, nil},
		{"quotes", dns.TypeTXT, []string{listName + ` 60 IN TXT "n=\"a b a=no:1\" a=\"h:1\""`}, "h:1", time.Minute, nil},
		{"garbage", dns.TypeTXT, []string{listName + ` 60 IN TXT "a=" "a" "=" "a==" "\000\255" "" "a=x:99999"`}, "", 0, errNoData},
	} {
		a, err := readAnswer(message(t, listName, tt.qtype, tt.records...))
		var got []string
		for _, r := range a.records {
			got = append(got, r.String())
		}
		slices.Sort(got)
		if !errors.Is(err, tt.err) || strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.err)
		} else if err == nil && a.ttl != tt.ttl {
			t.Errorf("%s: time to live %v, want %v", tt.name, a.ttl, tt.ttl)
		}
	}
}

func TestReadAnswerBounds(t *testing.T) {
	m := message(t, listName, dns.TypeSRV)
	for i := range 5000 {
		rr := &dns.SRV{Hdr: dns.RR_Header{Name: listName, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: 60}}
		rr.Priority, rr.Port, rr.Target = uint16(i%2), uint16(i+1), "a."
		m.Answer = append(m.Answer, rr)
		m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "a.", Rrtype: dns.TypeA}, A: []byte{192, 0, 2, byte(i)}})
	}
	a, err := readAnswer(m)
	if err != nil || len(a.records) != maxRecords {
		t.Fatalf("%d records, %v", len(a.records), err)
	}
	for _, r := range a.records {
		if r.priority != 0 || len(r.addrs) != maxPerName {
			t.Fatalf("record %v of priority %d with %d addresses", r, r.priority, len(r.addrs))
		}
	}
	hosts := message(t, "a.", dns.TypeA)
	for i := range 3000 {
		hosts.Answer = append(hosts.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: "a.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{192, 0, byte(i >> 8), byte(i)},
		})
	}
	if a, err := readAnswer(hosts); err != nil || len(a.addrs) != maxRecords {
		t.Errorf("%d addresses, %v", len(a.addrs), err)
	}
}

// Within a priority the first one is chosen by weight; the priorities stay in order.
func TestOrder(t *testing.T) {
	records := []record{
		{Entry: Entry{Host: "w10"}, priority: 5, weight: 10},
		{Entry: Entry{Host: "w30"}, priority: 5, weight: 30},
		{Entry: Entry{Host: "w60"}, priority: 5, weight: 60},
		{Entry: Entry{Host: "w0"}, priority: 5},
		{Entry: Entry{Host: "x"}, priority: 6},
		{Entry: Entry{Host: "y"}, priority: 6},
		{Entry: Entry{Host: "best"}, priority: 1, weight: 1},
	}
	const rounds = 50_000
	first := make(map[string]float64)
	for range rounds {
		got := order(slices.Clone(records))
		if got[0].Host != "best" || got[4].priority != 5 || got[5].priority != 6 || len(unique(slices.Clone(got))) != len(records) {
			t.Fatalf("order %v", got)
		}
		first[got[1].Host] += 1.0 / rounds
		first[got[5].Host] += 1.0 / rounds
	}
	// RFC 2782 draws from 0 to the sum of 100; the weightless one, first in the row, has the draw of 0.
	for host, want := range map[string]float64{"w10": 10. / 101, "w30": 30. / 101, "w60": 60. / 101, "w0": 1. / 101, "x": .5, "y": .5} {
		if math.Abs(first[host]-want) > 0.015 {
			t.Errorf("%s is first in %.3f of the draws, want %.3f", host, first[host], want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`plain`: "plain", `a\"b`: `a"b`, `a\\b`: `a\b`, `\065\066`: "AB", `\06`: "06", `\`: `\`, `\255x`: "\xffx",
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParseTXT(f *testing.F) {
	for _, s := range []string{"a=host:7", `a="h:1" b=2 A=192.0.2.1`, "a=", `"`, "a= a=x a=\ty"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all := parseTXT(unescape(s), 4)
		if len(all) > 4 {
			t.Errorf("%d entries", len(all))
		}
		for _, e := range all {
			if again := parseTXT("x=1 a="+e.String()+" y", 4); !slices.Equal(again, []Entry{e}) {
				t.Errorf("%v is read as %v", e, again)
			}
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	for _, m := range []*dns.Msg{
		message(f, listName, dns.TypeSRV, listName+" 60 IN SRV 1 2 3 a.", listName+" 60 IN CNAME a.", "a. 1 IN SRV 1 1 1 ."),
		message(f, listName, dns.TypeTXT, listName+` 60 IN TXT "a=h:1" "\000"`),
		message(f, "a.", dns.TypeAAAA, "a. 60 IN AAAA 2001:db8::1", "a. 5 IN AAAA ::ffff:192.0.2.1"),
	} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil {
			return
		}
		a, err := readAnswer(m)
		if len(a.records) > maxRecords || len(a.addrs) > maxRecords {
			t.Errorf("%d records, %d addresses", len(a.records), len(a.addrs))
		}
		if err == nil && (a.ttl < minTTL || a.ttl > maxTTL || len(a.records)+len(a.addrs) == 0) {
			t.Errorf("answer %+v", a)
		}
		for i, r := range a.records {
			if r.Port == 0 || i > 0 && r.priority < a.records[i-1].priority {
				t.Errorf("record %d of %+v", i, a.records)
			}
			if e, err := ParseEntry(r.Entry.String()); err != nil || e != r.Entry {
				t.Errorf("%v does not parse: %v, %v", r.Entry, e, err)
			}
		}
	})
}

func BenchmarkReadAnswer(b *testing.B) {
	m := message(b, listName, dns.TypeSRV)
	for i := range 256 {
		rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN SRV 1 %d 41820 h%d.example.org.", listName, i, i))
		if err != nil {
			b.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readAnswer(m); err != nil {
			b.Fatal(err)
		}
	}
}
