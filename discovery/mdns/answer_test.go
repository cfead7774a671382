package mdns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// ask makes a query; class may have topBit.
func ask(t *testing.T, class uint16, edit func(*dns.Msg), names ...string) []byte {
	t.Helper()
	m := new(dns.Msg)
	for _, n := range names {
		name, kind, _ := strings.Cut(n, " ")
		m.Question = append(m.Question, dns.Question{Name: name, Qtype: dns.StringToType[kind], Qclass: class})
	}
	if edit != nil {
		edit(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// told lists the types of a section's records.
func types(rrs []dns.RR) string {
	var all []string
	for _, rr := range rrs {
		all = append(all, dns.TypeToString[rr.Header().Rrtype])
	}
	return strings.Join(all, " ")
}

// settled runs one host until it has announced itself, and returns its name.
func settled(t *testing.T, w *wire, addrs []string) (*host, string) {
	h := newHost(t, w, 2, addrs, func(c *Config) { c.Known, c.Found = nil, nil }).start()
	time.Sleep(time.Minute)
	synctest.Wait()
	name, _, _ := strings.Cut(w.last(t).Answer[0].(*dns.PTR).Ptr, ".")
	return h, name
}

func TestAnswers(t *testing.T) {
	const all = "SRV TXT A AAAA NSEC NSEC"
	for _, tt := range []struct {
		name, ask       string
		addrs           []string
		answer, another string
		now             bool // without delay
	}{
		{"browse", "_meshnet._udp.local. PTR", dual("1"), "PTR", all, false},
		{"browse any", "_meshnet._udp.local. ANY", dual("1"), "PTR", all, false},
		{"case", "_MeshNet._UDP.LOCAL. PTR", dual("1"), "PTR", all, false},
		{"all services", "_services._dns-sd._udp.local. PTR", dual("1"), "PTR", "", false},
		{"service", "N._meshnet._udp.local. SRV", dual("1"), "SRV", "TXT A AAAA NSEC NSEC", true},
		{"text", "N._meshnet._udp.local. TXT", dual("1"), "TXT", "SRV A AAAA NSEC NSEC", true},
		{"instance", "N._meshnet._udp.local. ANY", dual("1"), "SRV TXT", "A AAAA NSEC NSEC", true},
		{"none such", "N._meshnet._udp.local. A", dual("1"), "NSEC", "", true},
		{"host 4", "N.local. A", dual("1"), "A", "AAAA NSEC", true},
		{"host 6", "N.local. AAAA", dual("1"), "AAAA", "A NSEC", true},
		{"no 6", "N.local. AAAA", v4("1"), "NSEC", "", true},
		{"host text", "N.local. TXT", dual("1"), "NSEC", "", true},
		{"other service", "_http._tcp.local. PTR", dual("1"), "", "", false},
		{"other instance", "0123456789abcdef._meshnet._udp.local. SRV", dual("1"), "", "", false},
		{"other type", "_meshnet._udp.local. SRV", dual("1"), "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *wire) {
				_, label := settled(t, w, tt.addrs)
				before := w.count()
				w.inject(ap("192.168.7.50:5353"), ask(t, dns.ClassINET, nil, strings.Replace(tt.ask, "N.", label+".", 1)))
				synctest.Wait()
				if got := w.count() > before+1; got != tt.now {
					t.Errorf("answered at once: %v", got)
				}
				time.Sleep(15 * time.Millisecond)
				if w.count() > before+1 && !tt.now {
					t.Error("answered within 15 ms")
				}
				time.Sleep(110 * time.Millisecond)
				synctest.Wait()
				if w.count() == before+1 {
					if tt.answer != "" {
						t.Error("no answer")
					}
					return
				}
				m := w.last(t)
				if got := types(m.Answer); got != tt.answer {
					t.Errorf("answer %q, want %q", got, tt.answer)
				}
				if got := types(m.Extra); got != tt.another {
					t.Errorf("additional %q, want %q", got, tt.another)
				}
			})
		})
	}
}

func TestAnswerAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		h, _ := settled(t, w, v4("1"))
		query := ask(t, dns.ClassINET|topBit, nil, serviceName+" PTR")
		// The others have not heard it for a while: they get the answer, too.
		before := w.count()
		w.inject(ap("192.168.7.50:5353"), query)
		time.Sleep(130 * time.Millisecond)
		if len(h.alone()) != 0 || w.count() != before+2 {
			t.Errorf("%d answers by unicast, %d by multicast", len(h.alone()), w.count()-before-1)
		}
		before = w.count()
		w.inject(ap("192.168.7.50:5353"), query)
		time.Sleep(2 * time.Second)
		if len(h.alone()) != 1 || h.alone()[0].to != ap("192.168.7.50:5353") || w.count() != before+1 {
			t.Errorf("%d answers by unicast, %d by multicast", len(h.alone()), w.count()-before-1)
		}
		// Not to anybody whose address is on no link of ours.
		w.inject(ap("10.1.2.3:5353"), query)
		time.Sleep(2 * time.Second)
		if len(h.alone()) != 1 {
			t.Errorf("answered %v", h.alone()[len(h.alone())-1].to)
		}
	})
}

func TestResolver(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		h, label := settled(t, w, dual("1"))
		before := w.count()
		query := ask(t, dns.ClassINET, func(m *dns.Msg) { m.Id = 4711 }, serviceName+" PTR")
		w.inject(ap("10.1.2.3:40000"), query)
		w.inject(ap("8.8.8.8:40000"), query)
		w.inject(ap("192.168.7.50:40000"), query)
		synctest.Wait()
		if len(h.alone()) != 1 || w.count() != before+3 {
			t.Fatalf("%d answers by unicast, %d by multicast", len(h.alone()), w.count()-before-3)
		}
		m := new(dns.Msg)
		if err := m.Unpack(h.alone()[0].data); err != nil {
			t.Fatal(err)
		}
		if h.alone()[0].to != ap("192.168.7.50:40000") || m.Id != 4711 || len(m.Question) != 1 || m.Question[0].Name != serviceName {
			t.Errorf("to %v: %v", h.alone()[0].to, m)
		}
		if types(m.Answer) != "PTR" || types(m.Extra) != "SRV TXT A AAAA" || m.Answer[0].(*dns.PTR).Ptr != label+"."+serviceName {
			t.Errorf("answer %v", m)
		}
		for _, rr := range append(m.Answer, m.Extra...) {
			if hd := rr.Header(); hd.Ttl > 10 || hd.Class != dns.ClassINET {
				t.Errorf("record %v", rr)
			}
		}
	})
}

func TestKnownAnswer(t *testing.T) {
	known := func(label string, life uint32) func(*dns.Msg) {
		return func(m *dns.Msg) {
			h := dns.RR_Header{Name: serviceName, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: life}
			m.Answer = append(m.Answer, &dns.PTR{Hdr: h, Ptr: label + "." + serviceName})
		}
	}
	for _, tt := range []struct {
		name    string
		label   string // "": its own
		life    uint32
		answers bool
	}{
		{"known", "", 90, false},
		{"half of its life", "", 60, false},
		{"less", "", 59, true},
		{"another", "0123456789abcdef", 120, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *wire) {
				_, label := settled(t, w, v4("1"))
				if tt.label != "" {
					label = tt.label
				}
				before := w.count()
				w.inject(ap("192.168.7.50:5353"), ask(t, dns.ClassINET, known(label, tt.life), serviceName+" PTR"))
				time.Sleep(time.Second)
				if got := w.count() > before+1; got != tt.answers {
					t.Errorf("answered: %v", got)
				}
			})
		})
	}
	t.Run("in two parts", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *wire) {
			_, label := settled(t, w, v4("1"))
			more := func(m *dns.Msg) { m.Truncated = true }
			for _, asker := range []string{"192.168.7.50:5353", "192.168.7.51:5353"} {
				before := w.count()
				w.inject(ap("192.168.7.50:5353"), ask(t, dns.ClassINET, more, serviceName+" PTR"))
				time.Sleep(300 * time.Millisecond)
				w.inject(ap(asker), ask(t, dns.ClassINET, known(label, 100)))
				time.Sleep(time.Second)
				if got, want := w.count() > before+2, asker != "192.168.7.50:5353"; got != want {
					t.Errorf("%s knew the rest, answered: %v", asker, got)
				}
			}
		})
	})
}

// What one of two askers knows, the other one need not.
func TestKnownToOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		_, label := settled(t, w, v4("1"))
		w.inject(ap("192.168.7.50:5353"), ask(t, dns.ClassINET, nil, serviceName+" PTR"))
		time.Sleep(130 * time.Millisecond) // answered: the next answer waits for a second
		w.inject(ap("192.168.7.50:5353"), ask(t, dns.ClassINET, func(m *dns.Msg) { m.Truncated = true }, serviceName+" PTR"))
		w.inject(ap("192.168.7.51:5353"), ask(t, dns.ClassINET, nil, serviceName+" PTR"))
		before := w.count()
		w.inject(ap("192.168.7.50:5353"), queries([]knownAnswer{{label, 100 * time.Second}})[0])
		synctest.Wait()
		w.inject(ap("192.168.7.50:5353"), ask(t, dns.ClassINET, func(m *dns.Msg) {
			h := dns.RR_Header{Name: serviceName, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: 100}
			m.Answer = append(m.Answer, &dns.PTR{Hdr: h, Ptr: label + "." + serviceName})
		}))
		time.Sleep(2 * time.Second)
		if w.count() != before+3 {
			t.Errorf("%d answers, want 1", w.count()-before-2)
		}
	})
}

// That the service is there is told whenever it is asked, also if something else just was.
func TestAnswersTwoQuestions(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		settled(t, w, v4("1"))
		for _, name := range []string{serviceName, metaName} {
			before := w.count()
			w.inject(ap("192.168.7.50:5353"), ask(t, dns.ClassINET, nil, name+" PTR"))
			time.Sleep(130 * time.Millisecond)
			if w.count() != before+2 {
				t.Errorf("%d answers about %s", w.count()-before-1, name)
			}
		}
	})
}

// Many who ask get one answer, and none a second long after it.
func TestAnswersAreFew(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		settled(t, w, v4("1"))
		before := w.count()
		const asked = 300
		for i := range asked {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 7, byte(10 + i%200)}), mdnsPort)
			w.inject(from, ask(t, dns.ClassINET, nil, serviceName+" PTR"))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if got := w.count() - before - asked; got < 3 || got > 5 {
			t.Errorf("%d answers in 3 s", got)
		}
	})
}

// Somebody who says something else in our name has us take another one; who repeats us does not, nor without end.
func TestConflict(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, v4("1"), nil).start()
		b := newHost(t, w, 2, v4("2"), nil).start()
		first, _ := b.await(1, time.Second)
		time.Sleep(time.Minute)
		liar := netip.MustParseAddrPort("192.168.7.66:5353")
		lie := own{label: first[0].Instance, port: 666, tag: testTag, addrs: []netip.Addr{liar.Addr()}}
		truth := own{label: first[0].Instance, port: 41820, tag: testTag, addrs: []netip.Addr{netip.MustParseAddr("192.168.7.1")}}

		w.inject(ap("192.168.7.1:5353"), lie.announcement()) // our own, late
		w.inject(liar, truth.announcement())
		time.Sleep(2 * time.Second)
		if got := b.kept(); len(got) != 1 || got[0].Instance != first[0].Instance {
			t.Errorf("after somebody repeated it: %v", got)
		}
		for _, from := range []netip.AddrPort{liar, ap("192.168.7.1:5353")} {
			news := len(b.told())
			w.inject(from, lie.goodbye())
			time.Sleep(3 * time.Second)
			if len(b.told()) != news {
				t.Errorf("after a false goodbye from %v: %v", from, b.told()[news:])
			}
		}
		w.inject(liar, lie.announcement())
		time.Sleep(3 * time.Second)
		got := b.kept()
		if len(got) != 1 || got[0].Instance == first[0].Instance || got[0].Addrs[0] != ap("192.168.7.1:41820") {
			t.Errorf("after a lie: %v", got)
		}
		if a.svc.Counters().Conflicts != 1 {
			t.Errorf("%+v", a.svc.Counters())
		}
		// Again and again, at once after each announcement.
		names := make(map[string]bool)
		for range 500 {
			if ptr, ok := w.last(t).Answer[0].(*dns.PTR); ok && ptr.Hdr.Ttl != 0 {
				lie.label, _, _ = strings.Cut(ptr.Ptr, ".")
				names[lie.label] = true
				w.mu.Lock()
				w.sent = w.sent[:0]
				w.mu.Unlock()
				w.inject(liar, lie.announcement())
			}
			time.Sleep(100 * time.Millisecond)
		}
		if len(names) < 4 || len(names) > 12 {
			t.Errorf("%d names in 50 s", len(names))
		}
	})
}

// The host is asked for by a program that runs beside it, from the same addresses.
func TestSameHost(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, dual("1"), nil).start()
		b := newHost(t, w, 2, dual("1"), nil)
		b.udp = 41821
		b.start()
		got, _ := a.await(1, time.Second)
		b.await(1, time.Second)
		if got[0].Addrs[0] != ap("192.168.7.1:41821") {
			t.Errorf("got %v", got)
		}
		time.Sleep(time.Minute)
		if c := a.svc.Counters(); c.Conflicts != 0 || len(a.kept()) != 1 {
			t.Errorf("%+v, knows %v", c, a.kept())
		}
	})
}

// One host with two interfaces on the same link is two instances, and does not take itself for somebody else.
func TestTwoOnOneLink(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, v4("1"), nil)
		a.mu.Lock()
		a.ifaces = append(a.ifaces, Interface{Name: "eth4", Index: 4, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.7.4/24")}})
		a.wires[4] = w
		a.mu.Unlock()
		w.attach(&port{a, a.ifaces[1]})
		a.start()
		b := newHost(t, w, 2, v4("2"), nil).start()
		got, _ := b.await(2, time.Second)
		if got[0].Instance == got[1].Instance {
			t.Error("one name on two interfaces")
		}
		ifaces := []string{}
		all, _ := a.await(2, time.Second) // b, by both
		for _, k := range all {
			ifaces = append(ifaces, k.Interface)
		}
		slices.Sort(ifaces)
		if !slices.Equal(ifaces, []string{"eth2", "eth4"}) {
			t.Errorf("found by %v", ifaces)
		}
		if c := a.svc.Counters(); c.Conflicts != 0 {
			t.Errorf("%+v", c)
		}
	})
}
