package mdns

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestNew(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a service without anything to do was made")
	}
	if _, err := New(Config{Tag: func(time.Time) [8]byte { return testTag }}); err == nil {
		t.Error("a service that announces no port was made")
	}
}

func TestTwoFindEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, dual("1"), nil).start()
		time.Sleep(time.Minute)
		newHost(t, w, 3, dual("2"), nil).start()
		got, _ := a.await(1, time.Second)
		want := []netip.AddrPort{ap("192.168.7.2:41820"), ap("[fe80::2%eth2]:41820")}
		if !slices.Equal(got[0].Addrs, want) || got[0].Tag != testTag || got[0].Interface != "eth2" {
			t.Errorf("got %+v, want %v", got[0], want)
		}
	})
}

// However long one comes after the other, they know each other within a second.
func TestWithinOneSecond(t *testing.T) {
	var slowest time.Duration
	for i := range 200 {
		bubble(t, func(t *testing.T, w *wire) {
			a := newHost(t, w, 2, dual("1"), nil).start()
			time.Sleep(time.Duration(i) * 20 * time.Millisecond)
			b := newHost(t, w, 3, dual("2"), nil).start()
			start := time.Now()
			a.await(1, time.Second)
			b.await(1, time.Second)
			slowest = max(slowest, time.Since(start))
			for _, h := range []*host{a, b} {
				if c := h.svc.Counters(); c.Conflicts+c.Refused+c.Malformed+c.OffLink+c.OtherNetwork+c.Overflow != 0 {
					t.Errorf("%+v", c)
				}
			}
		})
	}
	t.Logf("slowest %v", slowest)
	if slowest > time.Second {
		t.Errorf("slowest %v", slowest)
	}
}

// Whoever is asked to ask, or told of changes, time and again does not do so on the link.
func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		name   string
		call   func(*Service)
		fewest int
		most   int
	}{
		{"Query", (*Service).Query, 10, 11},
		{"Changed", (*Service).Changed, 20, 24},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *wire) {
				a := newHost(t, w, 2, v4("1"), nil).start()
				time.Sleep(10 * time.Minute)
				newHost(t, w, 2, v4("2"), func(c *Config) { c.Known, c.Found = nil, nil }).start()
				time.Sleep(10 * time.Second)
				before := w.count()
				for range 1000 { // what is known already is not answered
					tt.call(a.svc)
					time.Sleep(10 * time.Millisecond)
				}
				if got := w.count() - before; got < tt.fewest || got > tt.most {
					t.Errorf("%d datagrams in 10 s, want %d to %d", got, tt.fewest, tt.most)
				}
			})
		})
	}
}

func TestGoodbye(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, dual("1"), nil).start()
		b := newHost(t, w, 2, dual("2"), nil).start()
		before, _ := a.await(1, time.Second)
		start := time.Now()
		b.stop()
		if took := time.Since(start); took > 250*time.Millisecond {
			t.Errorf("goodbye took %v", took)
		}
		if _, took := a.await(0, 2*time.Second); took > 1200*time.Millisecond {
			t.Errorf("gone after %v", took)
		}
		last := a.told()[len(a.told())-1]
		if !last.Gone || last.Instance != before[0].Instance || !slices.Equal(last.Addrs, before[0].Addrs) {
			t.Errorf("last news %+v, want that %+v is gone", last, before[0])
		}
	})
}

func TestVanished(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, dual("1"), nil).start()
		newHost(t, w, 2, dual("2"), nil).start()
		a.await(1, time.Second)
		time.Sleep(10 * time.Minute)
		w.mu.Lock()
		w.cut = true
		w.mu.Unlock()
		if _, took := a.await(0, 3*time.Minute); took > 2*time.Minute {
			t.Errorf("gone after %v", took)
		}
	})
}

// Those that stay are not taken for gone, and that costs little.
func TestQuietDay(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		const n = 10
		var hosts []*host
		for i := range n {
			hosts = append(hosts, newHost(t, w, 2, dual(fmt.Sprint(i+1)), nil).start())
		}
		for _, h := range hosts {
			h.await(n-1, time.Second)
		}
		hour := time.Now().Truncate(time.Hour).Add(time.Hour)
		time.Sleep(time.Until(hour.Add(5 * time.Minute))) // the names are new, and will stay for a while
		synctest.Wait()
		before, sent := len(hosts[0].told()), w.count()
		time.Sleep(50 * time.Minute)
		if after := len(hosts[0].told()); after != before {
			t.Errorf("news in a quiet hour: %v", hosts[0].told()[before:])
		}
		perMinute := float64(w.count()-sent) / 50
		t.Logf("%.1f datagrams a minute on a LAN of %d, both families", perMinute, n)
		if perMinute > 30 {
			t.Errorf("%.1f datagrams a minute", perMinute)
		}
	})
}

func TestInterfaceLater(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		other := new(wire)
		a := newHost(t, w, 2, dual("1"), nil).start()
		b := newHost(t, other, 2, dual("2"), nil).start()
		time.Sleep(time.Minute)
		a.plug(other, 3, "10.9.0.1/24", "192.168.7.77/24")
		if _, took := b.await(1, 15*time.Second); took > 11*time.Second {
			t.Errorf("found after %v", took)
		}
		got, _ := a.await(1, time.Second)
		if got[0].Interface != "eth3" {
			t.Errorf("found by %s", got[0].Interface)
		}
		first := b.kept()[0].Addrs
		if want := []netip.AddrPort{ap("10.9.0.1:41820"), ap("192.168.7.77:41820")}; !slices.Equal(first, want) {
			t.Errorf("announced %v, want %v only: addresses of that interface", first, want)
		}
		// It goes as it came: b's announcement is gone at once, a's is withdrawn by nobody.
		a.mu.Lock()
		a.ifaces = a.ifaces[:1]
		a.mu.Unlock()
		a.svc.Changed()
		a.await(0, 50*time.Millisecond)
	})
}

func TestChanged(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, dual("1"), nil).start()
		b := newHost(t, w, 2, dual("2"), nil).start()
		first, _ := b.await(1, time.Second)
		time.Sleep(time.Minute)
		a.mu.Lock()
		a.udp = 5000
		a.mu.Unlock()
		a.svc.Changed()
		time.Sleep(300 * time.Millisecond)
		got := b.kept()
		if len(got) != 1 || got[0].Addrs[0] != ap("192.168.7.1:5000") || got[0].Instance != first[0].Instance {
			t.Errorf("after another port: %v", got)
		}
		// The port is closed: nothing is announced.
		a.mu.Lock()
		a.udp = 0
		a.mu.Unlock()
		a.svc.Changed()
		b.await(0, 2*time.Second)
		a.mu.Lock()
		a.udp = 5001
		a.mu.Unlock()
		a.svc.Changed()
		b.await(1, time.Second)
	})
}

// Another address gives another name: this may be another link, where one must not be known again.
func TestMoved(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, dual("1"), nil).start()
		b := newHost(t, w, 2, dual("2"), nil).start()
		first, _ := b.await(1, time.Second)
		a.plug(w, 2, "192.168.7.9/24", "fe80::1/64", "fe80::99/64")
		a.svc.Changed()
		time.Sleep(2 * time.Second)
		got, _ := b.await(1, time.Second)
		if got[0].Instance == first[0].Instance {
			t.Error("the name stayed")
		}
		if !slices.Contains(got[0].Addrs, ap("192.168.7.9:41820")) || slices.Contains(got[0].Addrs, ap("192.168.7.1:41820")) {
			t.Errorf("addresses %v", got[0].Addrs)
		}
		// One more address does not.
		a.plug(w, 2, "192.168.7.9/24", "fe80::1/64", "fe80::99/64", "fd00::1/64")
		a.svc.Changed()
		time.Sleep(1500 * time.Millisecond)
		more, _ := b.await(1, time.Second)
		if more[0].Instance != got[0].Instance || len(more[0].Addrs) != len(got[0].Addrs)+1 {
			t.Errorf("after one more address: %v", more)
		}
	})
}

func TestOtherNetwork(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		a := newHost(t, w, 2, dual("1"), nil).start()
		newHost(t, w, 2, dual("2"), func(c *Config) { c.Tag = func(time.Time) [8]byte { return [8]byte{9} } }).start()
		joiner := newHost(t, w, 2, dual("3"), func(c *Config) { c.Tag, c.Port, c.Known = nil, nil, nil }).start()
		joiner.await(2, time.Second)
		time.Sleep(time.Minute)
		if got := a.kept(); len(got) != 0 {
			t.Errorf("a member took the announcements %v", got)
		}
		if a.svc.Counters().OtherNetwork == 0 {
			t.Error("the other network's announcements were not counted")
		}
	})
}

// hourTag is a tag as networks have it: another one each hour.
func hourTag(now time.Time) [8]byte { return [8]byte(fmt.Appendf(nil, "%08d", now.Unix()/3600)) }

// The name changes with the hour, whatever the tag does, and with the tag.
func TestName(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		tag := testTag
		a := newHost(t, w, 2, v4("1"), func(c *Config) { c.Tag = func(time.Time) [8]byte { return tag } }).start()
		b := newHost(t, w, 2, v4("2"), func(c *Config) { c.Known = nil }).start()
		first, _ := b.await(1, time.Second)
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour + 20*time.Second)))
		second, _ := b.await(1, time.Second)
		if second[0].Instance == first[0].Instance {
			t.Error("the name stayed for more than the hour")
		}
		synctest.Wait()
		tag = [8]byte{7}
		a.svc.Changed()
		time.Sleep(1500 * time.Millisecond)
		third, _ := b.await(1, time.Second)
		if third[0].Instance == second[0].Instance || third[0].Tag != tag {
			t.Errorf("with another tag: %+v", third)
		}
	})
}

func TestEveryHour(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		known := func(tag [8]byte) bool {
			return tag == hourTag(time.Now()) || tag == hourTag(time.Now().Add(-time.Hour)) || tag == hourTag(time.Now().Add(time.Hour))
		}
		edit := func(c *Config) { c.Tag, c.Known = hourTag, known }
		a := newHost(t, w, 2, dual("1"), edit).start()
		b := newHost(t, w, 2, dual("2"), edit).start()
		seen := make(map[string]bool)
		for range 4 {
			a.await(1, 2*time.Second)
			got, _ := b.await(1, 2*time.Second)
			if seen[got[0].Instance] || got[0].Tag != hourTag(time.Now()) {
				t.Errorf("an hour later: %+v", got[0])
			}
			seen[got[0].Instance] = true
			for range 300 { // never without the other
				time.Sleep(12 * time.Second)
				if len(a.kept()) == 0 || len(b.kept()) == 0 {
					t.Fatalf("not known any more at %v", time.Now())
				}
			}
			time.Sleep(12 * time.Second)
		}
		if c := a.svc.Counters(); c.Conflicts != 0 || c.Refused != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// All that an announcement says is what the protocol wants it to say.
func TestWhatIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		newHost(t, w, 2, dual("1"), nil).start()
		time.Sleep(300 * time.Millisecond)
		m := w.last(t)
		if m == nil {
			t.Fatal("nothing was announced")
		}
		var got []string
		name := ""
		for _, rr := range append(slices.Clone(m.Answer), m.Extra...) {
			if srv, ok := rr.(*dns.SRV); ok {
				name, _, _ = strings.Cut(srv.Target, ".")
			}
			got = append(got, strings.Join(strings.Fields(rr.String()), " "))
		}
		if _, err := hex.DecodeString(name); err != nil || len(name) != labelSize {
			t.Errorf("name %q", name)
		}
		want := []string{
			"_meshnet._udp.local. 120 IN PTR N._meshnet._udp.local.",
			"N._meshnet._udp.local. 120 CLASS32769 SRV 0 0 41820 N.local.",
			`N._meshnet._udp.local. 120 CLASS32769 TXT "v=1" "t=0102030405060708"`,
			"N.local. 120 CLASS32769 A 192.168.7.1",
			"N.local. 120 CLASS32769 AAAA fe80::1",
			"N._meshnet._udp.local. 120 CLASS32769 NSEC N._meshnet._udp.local. TXT SRV",
			"N.local. 120 CLASS32769 NSEC N.local. A AAAA",
		}
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "N", name)
			want[i] = strings.ReplaceAll(want[i], "I"+name, "IN") // the class
			want[i] = strings.ReplaceAll(want[i], name+"SEC", "NSEC")
		}
		if !slices.Equal(got, want) {
			t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// A crowd that starts at once finds itself, and does not drown the link.
func TestCrowd(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire) {
		const n = 50
		var hosts []*host
		for i := range n {
			hosts = append(hosts, newHost(t, w, 2, v4(fmt.Sprint(i+1)), nil).start())
		}
		for _, h := range hosts {
			h.await(n-1, 5*time.Second)
		}
		time.Sleep(10 * time.Second)
		t.Logf("%d datagrams in the first ten seconds of %d", w.count(), n)
		if c := w.count(); c > 15*n {
			t.Errorf("%d datagrams for %d hosts", c, n)
		}
	})
}
