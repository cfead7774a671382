package mdns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// bogus is an announcement of an instance that does not exist.
func bogus(i int, addrs ...string) []byte {
	o := own{label: fmt.Sprintf("%016x", i), port: 9, tag: testTag}
	for _, a := range addrs {
		o.addrs = append(o.addrs, netip.MustParseAddr(a))
	}
	return o.announcement()
}

// Ten thousand made-up members are not kept, and do not keep the real one out, whichever came first.
func TestFlood(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before bool
	}{{"known before", true}, {"comes later", false}} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *wire) {
				a := newHost(t, w, 2, v4("1"), nil).start()
				b := newHost(t, w, 2, v4("2"), nil)
				if tt.before {
					b.start()
					a.await(1, time.Second)
				}
				for i := range 10_000 {
					w.inject(ap("192.168.7.66:5353"), bogus(i, "192.168.7.66"))
					time.Sleep(6 * time.Millisecond) // below the budget, for a minute
				}
				if !tt.before {
					b.start()
					time.Sleep(2 * time.Second)
				}
				kept := a.kept()
				if len(kept) > maxKept || len(kept) < maxKept/2 {
					t.Errorf("%d kept", len(kept))
				}
				real := func(k Announcement) bool { return slices.Contains(k.Addrs, ap("192.168.7.2:41820")) }
				if !slices.ContainsFunc(kept, real) {
					t.Error("the real member is not among them")
				}
				if a.svc.Counters().Full == 0 {
					t.Error("none was without room")
				}
				time.Sleep(3 * time.Minute)
				if kept := a.kept(); len(kept) != 1 || !real(kept[0]) {
					t.Errorf("%d kept after the flood", len(kept))
				}
			})
		})
	}
}

// More than the budget is not even read.
func TestBudget(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, v4("1"), nil).start()
		time.Sleep(time.Minute)
		for i := range 5000 {
			w.inject(ap("192.168.7.66:5353"), bogus(i, "192.168.7.66"))
			time.Sleep(time.Millisecond)
		}
		if c := a.svc.Counters(); c.OverBudget < 2900 || c.OverBudget > 3100 {
			t.Errorf("%+v", c)
		}
		time.Sleep(5 * time.Second)
		newHost(t, w, 2, v4("2"), nil).start()
		time.Sleep(time.Second)
		if !slices.ContainsFunc(a.kept(), func(k Announcement) bool { return k.Addrs[0] == ap("192.168.7.2:41820") }) {
			t.Error("nobody is found after a flood")
		}
	})
}

// No record makes us send anything to somebody who is not there.
func TestVictims(t *testing.T) {
	const source = "192.168.7.66:5353"
	for _, tt := range []struct {
		name  string
		from  string
		addrs []string
		want  []string // nil: refused
	}{
		{"internet", source, []string{"203.0.113.9", "2001:db8::9"}, nil},
		{"internet among others", source, []string{"203.0.113.9", "192.168.7.66"}, []string{"192.168.7.66:9"}},
		{"internet, and says so", "203.0.113.9:5353", []string{"203.0.113.9"}, nil},
		{"says it is elsewhere", "203.0.113.9:5353", []string{"192.168.7.66"}, nil},
		{"loopback", source, []string{"127.0.0.1", "::1"}, nil},
		{"multicast", source, []string{"224.0.0.251", "ff02::1"}, nil},
		{"unspecified", source, []string{"0.0.0.0", "::"}, nil},
		{"broadcast", source, []string{"255.255.255.255", "192.168.7.255", "192.168.7.0"}, nil},
		{"mapped", source, []string{"::ffff:192.168.7.66"}, nil},
		{"other private", source, []string{"10.1.2.3", "fd00::1"}, []string{"10.1.2.3:9", "[fd00::1]:9"}},
		{"link-local", source, []string{"169.254.1.2", "fe80::7"}, []string{"169.254.1.2:9", "[fe80::7%eth2]:9"}},
		{"public subnet of the link", source, []string{"198.51.100.7", "2001:db8:7::7"}, []string{"198.51.100.7:9", "[2001:db8:7::7]:9"}},
		{"not from the service's port", "192.168.7.66:1234", []string{"192.168.7.66"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *wire) {
				addrs := append(dual("1"), "198.51.100.1/24", "2001:db8:7::1/64")
				a := newHost(t, w, 2, addrs, nil).start()
				time.Sleep(time.Second)
				w.inject(ap(tt.from), bogus(1, tt.addrs...))
				synctest.Wait()
				var got []string
				for _, k := range a.kept() {
					for _, addr := range k.Addrs {
						got = append(got, addr.String())
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("believed %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// What was sent to this host alone counts only from the link.
func TestOffLink(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, dual("1"), nil).start()
		time.Sleep(time.Second)
		for i, tt := range []struct {
			from  string
			iface int
			ok    bool
		}{
			{"10.1.2.3:5353", 2, false},
			{"8.8.8.8:5353", 2, false},
			{"192.168.7.66:5353", 7, false},
			{"192.168.7.66:5353", 2, true},
			{"192.168.7.66:5353", 0, true}, // the system does not tell
			{"8.8.8.8:5353", 0, false},
		} {
			before := len(a.kept())
			a.deliver(datagram{iface: tt.iface, from: ap(tt.from), data: bogus(i, "192.168.7.66")})
			synctest.Wait()
			if got := len(a.kept()) > before; got != tt.ok {
				t.Errorf("from %s by %d: taken %v", tt.from, tt.iface, got)
			}
		}
	})
}

// Nobody else withdraws or moves an announcement.
func TestNotTheirs(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, v4("1"), nil).start()
		time.Sleep(time.Second)
		w.inject(ap("192.168.7.2:5353"), bogus(1, "192.168.7.2"))
		synctest.Wait()
		goodbye := own{label: fmt.Sprintf("%016x", 1)}
		w.inject(ap("192.168.7.66:5353"), bogus(1, "192.168.7.66"))
		w.inject(ap("192.168.7.66:5353"), goodbye.goodbye())
		time.Sleep(3 * time.Second)
		if got := a.kept(); len(got) != 1 || got[0].Addrs[0] != ap("192.168.7.2:9") {
			t.Errorf("knows %v", got)
		}
		if a.svc.Counters().Refused != 2 {
			t.Errorf("%+v", a.svc.Counters())
		}
		// A goodbye that is taken back within a second was none.
		w.inject(ap("192.168.7.2:5353"), goodbye.goodbye())
		time.Sleep(500 * time.Millisecond)
		w.inject(ap("192.168.7.2:5353"), bogus(1, "192.168.7.2"))
		time.Sleep(3 * time.Second)
		if got := a.kept(); len(got) != 1 {
			t.Errorf("knows %v", got)
		}
	})
}

func TestReadTag(t *testing.T) {
	long := strings.Repeat("x", 255)
	for _, tt := range []struct {
		name string
		txt  []string
		ok   bool
	}{
		{"as ours", []string{"v=1", "t=0102030405060708"}, true},
		{"any order and case", []string{"T=0102030405060708", "V=1"}, true},
		{"unknown keys", []string{"", "=", "x", "id=7", long, "v=1", "name=" + long[:200], "t=0102030405060708"}, true},
		{"first counts", []string{"v=1", "t=0102030405060708", "t=ffffffffffffffff", "v=2"}, true},
		{"other version", []string{"v=2", "t=0102030405060708"}, false},
		{"no version", []string{"t=0102030405060708"}, false},
		{"no tag", []string{"v=1"}, false},
		{"short", []string{"v=1", "t=01020304050607"}, false},
		{"long", []string{"v=1", "t=010203040506070809"}, false},
		{"not hex", []string{"v=1", "t=010203040506070g"}, false},
		{"nothing", nil, false},
	} {
		tag, ok := readTag(tt.txt)
		if ok != tt.ok || ok && tag != testTag {
			t.Errorf("%s: %x, %v", tt.name, tag, ok)
		}
	}
}

func TestReadMessage(t *testing.T) {
	good := bogus(1, "192.168.7.66")
	edit := func(f func(b []byte)) []byte {
		b := slices.Clone(good)
		f(b)
		return b
	}
	many := new(dns.Msg)
	for i := range 500 {
		h := dns.RR_Header{Name: "x.local.", Rrtype: dns.TypeA, Class: dns.ClassINET}
		many.Answer = append(many.Answer, &dns.A{Hdr: h, A: []byte{10, 0, byte(i >> 8), byte(i)}})
	}
	many.Compress = true
	crowd, err := many.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		data    []byte
		records int // -1: malformed
	}{
		{"good", good, 4},
		{"empty", nil, -1},
		{"header only", make([]byte, 12), 0},
		{"short header", make([]byte, 11), -1},
		{"cut", good[:len(good)-70], -1},
		{"opcode", edit(func(b []byte) { b[2] |= 1 << 3 }), -1},
		{"rcode", edit(func(b []byte) { b[3] |= 3 }), -1},
		{"says more", edit(func(b []byte) { binary.BigEndian.PutUint16(b[6:], 9) }), -1},
		{"name points at itself", append([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12, 0, 12, 0, 1), -1},
		{"too long", make([]byte, maxMessage+1), -1},
		{"many", crowd, maxRecords},
	} {
		m, err := readMessage(tt.data)
		switch {
		case err != nil && tt.records >= 0:
			t.Errorf("%s: %v", tt.name, err)
		case err == nil && len(m.records) != tt.records:
			t.Errorf("%s: %d records, want %d", tt.name, len(m.records), tt.records)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(bogus(1, "192.168.7.66", "fe80::1"))
	f.Add(queries([]knownAnswer{{label: "0123456789abcdef", left: time.Minute}})[0])
	f.Add((&own{label: "0123456789abcdef"}).goodbye())
	f.Fuzz(func(t *testing.T, data []byte) {
		related(data, nil)
		now := time.Unix(1_800_000_000, 0)
		cfg := &Config{Tag: hourTag, Port: func() uint16 { return 7 }, Found: func(Announcement) {}}
		c := newCore(cfg, new(counters))
		c.look(now, []Interface{{Name: "eth2", Index: 2, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.7.1/24")}}}, false)
		c.faces[0].me.label = "0123456789abcdef"
		m, err := readMessage(data)
		if err == nil {
			if n := len(m.questions) + len(m.records); n > maxRecords {
				t.Fatalf("%d questions and records", n)
			}
			for _, s := range m.sightings() {
				if len(s.addrs) > maxAddrs || len(s.label) != labelSize {
					t.Fatalf("%+v", s)
				}
			}
		}
		for _, from := range []string{"192.168.7.2:5353", "192.168.7.2:1234"} {
			c.handle(now, datagram{iface: 2, from: ap(from), group: true, data: data})
			now = now.Add(time.Second)
			c.tick(now)
		}
		if len(c.heard) > maxRecords || len(c.out) > 20 {
			t.Fatalf("%d kept, %d sent", len(c.heard), len(c.out))
		}
		for _, p := range c.out {
			if _, err := readMessage(p.data); err != nil {
				t.Fatalf("what was sent: %v", err)
			}
		}
		for _, a := range c.news {
			for _, addr := range a.Addrs {
				if !addr.Addr().IsPrivate() && !addr.Addr().IsLinkLocalUnicast() {
					t.Fatalf("believed %v", addr)
				}
			}
		}
	})
}
