package mdns

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestQueries(t *testing.T) {
	for _, n := range []int{0, 1, knownPerQuery, knownPerQuery + 1, maxKept} {
		var known []knownAnswer
		for i := range n {
			known = append(known, knownAnswer{fmt.Sprintf("%016x", i), 90 * time.Second})
		}
		out := queries(known)
		total := 0
		for i, b := range out {
			m := new(dns.Msg)
			if err := m.Unpack(b); err != nil {
				t.Fatal(err)
			}
			if len(b) > 1400 || m.Truncated != (i < len(out)-1) || (len(m.Question) == 1) != (i == 0) || m.Response {
				t.Errorf("%d known answers, message %d: %d bytes, %v", n, i, len(b), m.MsgHdr)
			}
			total += len(m.Answer)
		}
		if total != n {
			t.Errorf("%d of %d known answers", total, n)
		}
	}
}

// Somebody else's question is as good as ours when it is told no more than we know.
func TestAskedByOther(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	knows := func(labels ...string) []dns.RR {
		var all []dns.RR
		for _, l := range labels {
			h := dns.RR_Header{Name: serviceName, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: 90}
			all = append(all, &dns.PTR{Hdr: h, Ptr: l + "." + serviceName})
		}
		return all
	}
	const a, b, own = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"
	for _, tt := range []struct {
		name  string
		asker string
		known []dns.RR
		at    time.Duration // of our own question
		want  bool
	}{
		{"nothing known", "192.168.7.2", nil, 100 * time.Millisecond, true},
		{"what we know", "192.168.7.2", knows(a), 100 * time.Millisecond, true},
		{"what we do not know", "192.168.7.2", knows(a, b), 100 * time.Millisecond, false},
		{"ourselves", "192.168.7.2", knows(a, own), 100 * time.Millisecond, true},
		{"who we do not know", "192.168.7.3", nil, 100 * time.Millisecond, false},
		{"ours is far", "192.168.7.2", nil, 3 * time.Second, false},
	} {
		c := newCore(&Config{Found: func(Announcement) {}}, new(counters))
		c.look(now, []Interface{{Index: 2, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.7.1/24")}}}, false)
		f := c.faces[0]
		f.me.label, f.ask.at = own, now.Add(tt.at)
		c.heard.put(now, key{2, a}, Announcement{}, netip.MustParseAddr("192.168.7.2"), ttl)
		c.askedByOther(now, f, netip.MustParseAddr(tt.asker), tt.known)
		if got := f.asked.Equal(now); got != tt.want {
			t.Errorf("%s: taken for ours: %v", tt.name, got)
		}
	}
}

// A new name is announced at once, though the old one just was, and what of that comes back late is still ours.
func TestRenamed(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	c := newCore(&Config{Tag: hourTag, Port: func() uint16 { return 7 }, Found: func(Announcement) {}}, new(counters))
	ifaces := []Interface{{Index: 2, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.7.1/24")}}}
	c.look(now, ifaces, false)
	f := c.faces[0]
	first := f.me
	now = now.Add(time.Hour - time.Second/2)
	c.tick(now)
	now = now.Add(time.Second / 2)
	c.out = nil
	c.look(now, ifaces, false)
	if f.me.label == first.label || f.me.tag == first.tag || len(c.out) != 1 {
		t.Errorf("an hour later: %+v was %+v, %d sent", f.me, first, len(c.out))
	}
	if m, err := readMessage(c.out[0].data); err != nil || !m.sightings()[0].gone || m.sightings()[0].label != first.label {
		t.Errorf("no goodbye: %+v, %v", m, err)
	}
	if at := f.announce.at.Sub(now); at > 250*time.Millisecond || f.announce.left != announcements {
		t.Errorf("announced after %v", at)
	}
	c.handle(now, datagram{iface: 2, from: ap("192.168.7.1:5353"), group: true, data: first.announcement()})
	c.handle(now, datagram{iface: 2, from: ap("192.168.7.1:5353"), group: true, data: f.me.announcement()})
	if len(c.heard) != 0 {
		t.Error("we found ourselves")
	}
}

func TestRefresh(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	c := newCore(&Config{Found: func(Announcement) {}}, new(counters))
	c.look(start, []Interface{{Index: 2, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.7.1/24")}}}, false)
	c.faces[0].ask.left = 0 // no questions but those
	c.heard.put(start, key{2, "a"}, Announcement{}, netip.MustParseAddr("192.168.7.2"), ttl)
	var asked []time.Duration
	for now := start; len(c.heard) > 0; now = now.Add(100 * time.Millisecond) {
		c.tick(now)
		if len(c.out) > 0 {
			asked = append(asked, now.Sub(start))
		}
		c.out = nil
		if now.Sub(start) > 121*time.Second {
			t.Fatal("still there")
		}
	}
	if len(asked) != 4 {
		t.Fatalf("asked at %v", asked)
	}
	for i, at := range asked {
		low := ttl * time.Duration(80+5*i) / 100
		if at < low || at > low+ttl/50+100*time.Millisecond {
			t.Errorf("asked after %v, want %v", at, low)
		}
	}
}

func TestChosen(t *testing.T) {
	var all []Interface
	for i := range 30 {
		all = append(all, Interface{Name: fmt.Sprintf("veth%d", i), Index: i + 1, Addrs: []netip.Prefix{netip.MustParsePrefix("fe80::1/64")}})
	}
	all = append(all,
		Interface{Name: "tun0", Index: 40, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		Interface{Name: "none", Index: 41},
		Interface{Name: "eth0", Index: 42, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.1.1/24")}})
	got := chosen(all, func(name string) bool { return name == "tun0" })
	if len(got) != maxInterfaces || got[0].Name != "eth0" || got[1].Name != "veth0" {
		t.Errorf("%d chosen: %v", len(got), got)
	}
}

func TestOwnAddrs(t *testing.T) {
	var i Interface
	for n := range 30 {
		i.Addrs = append(i.Addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 7, byte(n + 1)}), 24))
	}
	i.Addrs = append(i.Addrs, netip.MustParsePrefix("fe80::1/64"))
	got := ownAddrs(i)
	if len(got) != maxAddrs || got[0] != i.Addrs[0].Addr() || got[maxAddrs-1] != netip.MustParseAddr("fe80::1") {
		t.Errorf("%v", got)
	}
}

func TestRelated(t *testing.T) {
	labels := []string{"0123456789abcdef"}
	for _, tt := range []struct {
		name string
		data []byte
		want bool
	}{
		{"announcement", bogus(1, "10.0.0.1"), true},
		{"browse", ask(t, dns.ClassINET, nil, serviceName+" PTR"), true},
		{"in capitals", ask(t, dns.ClassINET, nil, "_MESHNET._udp.local. PTR"), true},
		{"all services", ask(t, dns.ClassINET, nil, metaName+" PTR"), true},
		{"our host", ask(t, dns.ClassINET, nil, "0123456789abcdef.local. A"), true},
		{"printers", ask(t, dns.ClassINET, nil, "_ipp._tcp.local. PTR", "_printer._tcp.local. PTR"), false},
		{"nothing", nil, false},
		{"end", []byte("_"), false},
	} {
		if got := related(tt.data, labels); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func BenchmarkInterfaces(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		chosen(Interfaces(), nil)
	}
}

func BenchmarkUnrelated(b *testing.B) {
	m := new(dns.Msg)
	for i := range 30 {
		m.Question = append(m.Question, dns.Question{Name: fmt.Sprintf("a printer %d._ipp._tcp.local.", i), Qtype: dns.TypeANY})
	}
	data, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	labels := []string{newLabel(), newLabel(), newLabel(), newLabel()}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if related(data, labels) {
			b.Fatal("related")
		}
	}
}

func BenchmarkAnnouncement(b *testing.B) {
	now := time.Unix(1_800_000_000, 0)
	one := bogus(1, "192.168.7.2", "fe80::2")
	for _, tt := range []struct {
		name  string
		known bool
		data  []byte
	}{{"own network", true, one}, {"other network", false, one}, {"as much as fits", true, worst(b)}} {
		b.Run(tt.name, func(b *testing.B) {
			cfg := &Config{Known: func([8]byte) bool { return tt.known }, Found: func(Announcement) {}}
			c := newCore(cfg, new(counters))
			c.look(now, []Interface{{Index: 2, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.7.1/24")}}}, false)
			d := datagram{iface: 2, from: ap("192.168.7.2:5353"), group: true, data: tt.data}
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(10 * time.Millisecond) // within the budget
				c.handle(now, d)
			}
		})
	}
}

// worst is a message that is as much work as one can be.
func worst(b *testing.B) []byte {
	m := new(dns.Msg)
	for i := range maxRecords {
		o := own{label: fmt.Sprintf("%016x", i), port: 9, addrs: []netip.Addr{netip.MustParseAddr("192.168.7.2")}}
		m.Answer = append(m.Answer, o.records(setSRV|setTXT, ttl)...)
	}
	m.Response, m.Compress = true, true
	m.Answer = m.Answer[:maxRecords]
	data, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	return data
}
