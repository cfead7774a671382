package portmap

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	self     = netip.MustParseAddr("192.168.1.2")
	routerIP = netip.MustParseAddr("192.168.1.1")
	external = netip.MustParseAddr("5.5.5.1")
	ipConn1  = []string{"urn:schemas-upnp-org:service:WANIPConnection:1"}
)

func router(change func(*fakeRouter)) *fakeRouter {
	r := &fakeRouter{addr: routerIP, external: external}
	change(r)
	return r
}

// bench runs a Mapper against fake routers in a bubble.
type bench struct {
	t       *testing.T
	m       *Mapper
	port    atomic.Uint32
	gws     atomic.Pointer[[]Gateway]
	changes chan netip.AddrPort
	cancel  func()
	ended   chan struct{}
}

func within(t *testing.T, do func(b *bench), routers ...*fakeRouter) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(routers...)
		b := &bench{t: t, changes: make(chan netip.AddrPort, 100), ended: make(chan struct{})}
		b.port.Store(41820)
		b.gateways(routers...)
		b.m = New(Config{
			Port:     func() uint16 { return uint16(b.port.Load()) },
			Gateways: func() []Gateway { return *b.gws.Load() },
			Listen:   n.listen, Dial: n.dial,
			Changed: func(a netip.AddrPort) { b.changes <- a },
		})
		ctx, cancel := context.WithCancel(t.Context())
		b.cancel = cancel
		go func() {
			defer close(b.ended)
			if err := b.m.Run(ctx); err != context.Canceled {
				t.Errorf("Run: %v", err)
			}
		}()
		do(b)
		b.end()
	})
}

func (b *bench) gateways(routers ...*fakeRouter) {
	gws := []Gateway{}
	for _, r := range routers {
		gws = append(gws, Gateway{Addr: r.addr, Self: self})
	}
	b.gws.Store(&gws)
}

// end ends Run and returns how long that took.
func (b *bench) end() time.Duration {
	start := time.Now()
	b.cancel()
	<-b.ended
	return time.Since(start)
}

// expect waits for a change for up to d of virtual time.
func (b *bench) expect(d time.Duration, want string) {
	b.t.Helper()
	select {
	case got := <-b.changes:
		if s := got.String(); s != want {
			b.t.Fatalf("changed to %s, want %s", s, want)
		}
	case <-time.After(d + time.Millisecond):
		b.t.Fatalf("no change within %v, want %s; status %+v", d, want, b.m.Status())
	}
}

func (b *bench) quiet(d time.Duration) {
	b.t.Helper()
	select {
	case got := <-b.changes:
		b.t.Fatalf("changed to %v", got)
	case <-time.After(d):
	}
}

const none = "invalid AddrPort"

// Each protocol alone, and the preferred of all, maps, renews at half-life and gives back.
func TestProtocols(t *testing.T) {
	for _, tt := range []struct {
		name   string
		router func(*fakeRouter)
		want   Protocol
		renew  string // the request that renews
		soon   time.Duration
	}{
		{"all", func(r *fakeRouter) { r.pcp, r.pmp, r.upnp = true, true, &fakeUPnP{services: ipConn1} }, PCP, "pcp map 7200", 50 * time.Millisecond},
		{"pcp", func(r *fakeRouter) { r.pcp = true }, PCP, "pcp map 7200", 400 * time.Millisecond},
		{"nat-pmp", func(r *fakeRouter) { r.pmp = true }, NATPMP, "pmp map 7200", 400 * time.Millisecond},
		{"upnp", func(r *fakeRouter) { r.upnp = &fakeUPnP{services: ipConn1} }, UPnP, "upnp AddPortMapping 41820 7200", 2 * time.Second},
		{"permanent", func(r *fakeRouter) { r.upnp = &fakeUPnP{services: ipConn1, permanent: true} }, UPnP, "upnp AddPortMapping 41820 0", 2 * time.Second},
		{"refused but upnp", func(r *fakeRouter) {
			r.upnp = &fakeUPnP{services: wanServices}
			r.fiction = func(pkt []byte, from netip.AddrPort) []fakePacket {
				if pkt[0] != pcpVersion {
					return nil
				}
				r.pcp, r.refuse = true, 2 // not authorized
				a := r.answerPCP(pkt, from)
				r.pcp, r.refuse = false, 0
				return []fakePacket{{a, netip.AddrPortFrom(routerIP, serverPort)}}
			}
		}, UPnP, "upnp AddPortMapping 41820 7200", 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := router(tt.router)
			within(t, func(b *bench) {
				b.expect(tt.soon, "5.5.5.1:41820")
				time.Sleep(3 * time.Second)
				s := b.m.Status()
				if s.Protocol != tt.want || s.External.String() != "5.5.5.1:41820" || s.Gateway != routerIP || s.Err != "" {
					t.Errorf("status %+v", s)
				}
				if s.UPnP == nil || *s.UPnP != (r.upnp != nil) || s.PCP == nil || s.NATPMP == nil || *s.NATPMP != r.pmp {
					t.Errorf("protocols: %+v", s)
				}
				if _, m := r.mapped(); m.to != netip.AddrPortFrom(self, 41820) || m.by != tt.want {
					t.Errorf("mapping %+v", m)
				}
				for hour := range 24 {
					if n := r.requests(tt.renew); n != hour+1 {
						t.Fatalf("after %d hours: %d requests %q", hour, n, tt.renew)
					}
					time.Sleep(time.Hour)
				}
				if _, m := r.mapped(); !m.to.IsValid() {
					t.Error("the mapping has expired")
				}
				if took := b.end(); took > time.Second {
					t.Errorf("ending took %v", took)
				}
				b.expect(0, none)
				if p, _ := r.mapped(); p != 0 {
					t.Error("the mapping was not given back")
				}
			}, r)
		})
	}
}

// A renewal keeps the nonce, as the router gives the mapping to nobody else.
func TestNonceStays(t *testing.T) {
	r := router(func(r *fakeRouter) { r.pcp, r.grant = true, 120 })
	within(t, func(b *bench) {
		b.expect(time.Second, "5.5.5.1:41820")
		_, before := r.mapped()
		time.Sleep(100 * time.Second)
		_, after := r.mapped()
		if before.nonce != after.nonce || before.nonce == [12]byte{} || !after.expiry.After(before.expiry) {
			t.Errorf("before %+v, after %+v", before, after)
		}
	}, r)
}

// Where nobody answers, little is sent and nothing is told.
func TestNoRouterSpeaks(t *testing.T) {
	r := router(func(*fakeRouter) {})
	within(t, func(b *bench) {
		b.quiet(24 * time.Hour)
		s := b.m.Status()
		if s.PCP == nil || *s.PCP || s.NATPMP == nil || *s.NATPMP || s.UPnP == nil || *s.UPnP || s.Err == "" || s.External.IsValid() {
			t.Errorf("status %+v", s)
		}
		if r.packets > 200*20 {
			t.Errorf("%d packets in a day", r.packets)
		}
		if took := b.end(); took > time.Second {
			t.Errorf("ending took %v", took)
		}
	}, r)
}

func TestNoGateway(t *testing.T) {
	r := router(func(r *fakeRouter) { r.pcp = true })
	within(t, func(b *bench) {
		b.expect(time.Second, "5.5.5.1:41820")
		b.gateways()
		b.m.LinkChanged()
		b.expect(time.Second, none)
		b.quiet(time.Hour)
		if s := b.m.Status(); s != (Status{}) {
			t.Errorf("status %+v", s)
		}
		before := r.packets
		b.quiet(time.Hour)
		if r.packets != before {
			t.Error("packets without a gateway")
		}
		b.gateways(r)
		b.m.LinkChanged()
		b.expect(time.Second, "5.5.5.1:41820")
	}, r)
}

// Another router, or another port: a new mapping at once, and the old one is given back.
func TestMoves(t *testing.T) {
	r1 := router(func(r *fakeRouter) { r.pcp = true })
	r2 := router(func(r *fakeRouter) {
		r.pmp, r.addr, r.external = true, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("6.6.6.6")
	})
	within(t, func(b *bench) {
		b.gateways(r1)
		b.m.LinkChanged()
		b.expect(time.Second, "5.5.5.1:41820")
		b.gateways(r2)
		b.m.LinkChanged()
		b.expect(0, none)
		b.expect(time.Second, "6.6.6.6:41820")
		if p, _ := r1.mapped(); p != 0 {
			t.Error("the first router still has it")
		}
		b.port.Store(5000)
		b.m.LinkChanged()
		b.expect(0, none)
		b.expect(time.Second, "6.6.6.6:5000")
		b.quiet(time.Minute)
		if p, m := r2.mapped(); p != 5000 || m.to.Port() != 5000 || len(r2.maps) != 1 {
			t.Errorf("mappings %+v", r2.maps)
		}
		b.m.LinkChanged() // nothing has
		b.quiet(time.Minute)
		r1.dead, r2.dead = true, true
		b.gateways(r1)
		b.m.LinkChanged()
		b.expect(0, none)
	}, r1, r2)
}

// Of several routers, the one with a public address.
func TestPublicPreferred(t *testing.T) {
	r1 := router(func(r *fakeRouter) { r.pcp, r.external = true, netip.MustParseAddr("100.64.3.4") })
	r2 := router(func(r *fakeRouter) { r.pcp, r.addr = true, netip.MustParseAddr("10.0.0.1") })
	within(t, func(b *bench) {
		b.expect(5*time.Second, "5.5.5.1:41820")
		time.Sleep(5 * time.Second)
		if p, _ := r1.mapped(); p != 0 {
			t.Error("the other one was not given back")
		}
		b.gateways(r1)
		b.m.LinkChanged()
		b.expect(0, none)
		b.expect(5*time.Second, "100.64.3.4:41820") // better than nothing: others may be behind the same NAT
	}, r1, r2)
}

func announcePCP(epoch uint32) []byte {
	pkt := append([]byte{2, 0x80, 0, 0, 0, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, epoch)...)
	return append(pkt, make([]byte, 12)...)
}

func announcePMP(epoch uint32, a string) []byte {
	ip := netip.MustParseAddr(a).As4()
	return append(binary.BigEndian.AppendUint32([]byte{0, 0x80, 0, 0}, epoch), ip[:]...)
}

// A router that restarts has the mapping again at once; what others say, or says nothing new, makes no request.
func TestRestart(t *testing.T) {
	for _, tt := range []struct {
		name     string
		router   func(*fakeRouter)
		announce func(r *fakeRouter) []byte
		asks     string
	}{
		{"pcp", func(r *fakeRouter) { r.pcp = true }, func(r *fakeRouter) []byte { return announcePCP(r.epoch()) }, "pcp map"},
		{"nat-pmp", func(r *fakeRouter) { r.pmp = true }, func(r *fakeRouter) []byte { return announcePMP(r.epoch(), "5.5.5.1") }, "pmp map"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := router(tt.router)
			within(t, func(b *bench) {
				b.expect(time.Second, "5.5.5.1:41820")
				time.Sleep(10 * time.Minute)
				good := netip.AddrPortFrom(routerIP, serverPort)
				for range 30 {
					r.net.announce(good, tt.announce(r))
					r.net.announce(netip.MustParseAddrPort("192.168.1.9:5351"), announcePCP(0))
					r.net.announce(netip.AddrPortFrom(routerIP, 1), announcePCP(0))
					r.net.announce(good, []byte("nonsense"))
					time.Sleep(time.Second)
				}
				if n := r.requests(tt.asks); n != 1 {
					t.Errorf("%d requests after announcements that say nothing new", n)
				}
				r.restart()
				r.net.announce(good, tt.announce(r))
				time.Sleep(time.Second)
				if p, _ := r.mapped(); p != 41820 {
					t.Error("it was not mapped again")
				}
				b.quiet(time.Second) // the address is the same
				before := r.packets
				for i := range 600 { // a liar on the link
					r.net.announce(good, announcePCP(uint32(i%2)*1e6))
					time.Sleep(100 * time.Millisecond)
				}
				if n := r.packets - before; n > 100 {
					t.Errorf("%d packets within a minute of false announcements", n)
				}
			}, r)
		})
	}
}

// A new outside address is told.
func TestNewAddress(t *testing.T) {
	r := router(func(r *fakeRouter) { r.pmp = true })
	within(t, func(b *bench) {
		b.expect(time.Second, "5.5.5.1:41820")
		time.Sleep(time.Minute)
		r.net.mu.Lock()
		r.external = netip.MustParseAddr("6.6.6.6")
		epoch := r.epoch()
		r.net.mu.Unlock()
		r.net.announce(netip.AddrPortFrom(routerIP, serverPort), announcePMP(epoch, "6.6.6.6"))
		b.expect(time.Second, "6.6.6.6:41820")
	}, r)
}

// A router that falls silent: the mapping counts until it expires, and giving it back waits no longer than a second.
func TestSilentRouter(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*fakeRouter)
	}{
		{"pcp", func(r *fakeRouter) { r.pcp = true }},
		{"nat-pmp", func(r *fakeRouter) { r.pmp = true }},
		{"upnp", func(r *fakeRouter) { r.upnp = &fakeUPnP{services: ipConn1} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := router(tt.set)
			within(t, func(b *bench) {
				b.expect(5*time.Second, "5.5.5.1:41820")
				start := time.Now()
				r.net.mu.Lock()
				r.dead = true
				r.net.mu.Unlock()
				b.quiet(time.Hour + 58*time.Minute)
				if b.m.Status().External != netip.MustParseAddrPort("5.5.5.1:41820") {
					t.Errorf("status %+v", b.m.Status())
				}
				b.expect(13*time.Minute, none)
				if d := time.Since(start); d > 7200*time.Second+15*time.Second {
					t.Errorf("lost after %v", d)
				}
				r.net.mu.Lock()
				r.dead = false
				r.net.mu.Unlock()
				b.expect(12*time.Minute, "5.5.5.1:41820")
				r.net.mu.Lock()
				r.dead = true
				r.net.mu.Unlock()
				if took := b.end(); took > time.Second {
					t.Errorf("ending took %v", took)
				}
			}, r)
		})
	}
}

// A change of links does not wait for what is under way.
func TestInterrupted(t *testing.T) {
	r1 := router(func(r *fakeRouter) {}) // answers nothing
	r2 := router(func(r *fakeRouter) { r.pcp, r.addr = true, netip.MustParseAddr("10.0.0.1") })
	within(t, func(b *bench) {
		b.gateways(r1)
		b.m.LinkChanged()
		time.Sleep(100 * time.Millisecond)
		b.gateways(r2)
		b.m.LinkChanged()
		b.expect(300*time.Millisecond, "5.5.5.1:41820")
		time.Sleep(3 * time.Second)
		if n := r2.requests("pcp map"); n != 1 {
			t.Errorf("%d requests", n)
		}
	}, r1, r2)
}

// Answers from elsewhere, to other requests, or broken, do not count.
func TestFalseAnswers(t *testing.T) {
	good := netip.AddrPortFrom(routerIP, serverPort)
	r := router(func(r *fakeRouter) {
		r.pcp, r.pmp = true, true
		r.fiction = func(pkt []byte, from netip.AddrPort) []fakePacket {
			var out []fakePacket
			if pkt[0] == pcpVersion && pkt[1] == pcpMap {
				bad := r.answerPCP(slices.Concat(pkt[:24], make([]byte, 12), pkt[36:]), from) // another nonce
				copy(bad[56:], []byte{9, 9, 9, 9})
				out = append(out, fakePacket{bad, good})
				wrong := r.answerPCP(pkt, from)
				copy(wrong[56:], []byte{9, 9, 9, 9})
				out = append(out, fakePacket{wrong, netip.MustParseAddrPort("192.168.1.9:5351")})
				out = append(out, fakePacket{wrong, netip.AddrPortFrom(routerIP, 999)})
				out = append(out, fakePacket{wrong[:30], good}, fakePacket{append(wrong, 0), good})
			}
			return append(out, fakePacket{[]byte{}, good}, fakePacket{[]byte{2, 0x81}, good}, fakePacket{make([]byte, 1100), good})
		}
	})
	within(t, func(b *bench) {
		b.expect(5*time.Second, "5.5.5.1:41820")
		b.quiet(time.Minute)
	}, r)
}

// A flood from the gateway's own address ends the conversation, not the program.
func TestFlood(t *testing.T) {
	r := router(func(r *fakeRouter) {
		r.fiction = func([]byte, netip.AddrPort) (out []fakePacket) {
			for range 60 {
				out = append(out, fakePacket{[]byte("x"), netip.AddrPortFrom(routerIP, serverPort)})
			}
			return out
		}
	})
	within(t, func(b *bench) { b.quiet(time.Minute) }, r)
}

func TestUPnP(t *testing.T) {
	many := strings.Repeat("<device><deviceList>", 300) + strings.Repeat("</deviceList></device>", 300)
	for _, tt := range []struct {
		name string
		upnp fakeUPnP
		want string // a change; "": none
	}{
		{"v1", fakeUPnP{services: wanServices[1:2]}, "5.5.5.1:41820"},
		{"v2", fakeUPnP{services: wanServices[:1]}, "5.5.5.1:41820"},
		{"ppp", fakeUPnP{services: wanServices[2:]}, "5.5.5.1:41820"},
		{"other services", fakeUPnP{services: []string{"urn:schemas-upnp-org:service:Layer3Forwarding:1"}}, ""},
		{"no address", fakeUPnP{services: ipConn1, external: "0.0.0.0"}, ""},
		{"nonsense address", fakeUPnP{services: ipConn1, external: "x"}, ""},
		{"loopback", fakeUPnP{services: ipConn1, external: "127.0.0.1"}, ""},
		{"elsewhere", fakeUPnP{services: ipConn1, located: "http://192.168.1.9:5000/root.xml"}, ""},
		{"a name", fakeUPnP{services: ipConn1, located: "http://router.example:5000/root.xml"}, ""},
		{"not http", fakeUPnP{services: ipConn1, located: "https://192.168.1.1:5000/root.xml"}, ""},
		{"credentials", fakeUPnP{services: ipConn1, located: "http://a:b@192.168.1.1:5000/root.xml"}, ""},
		{"no description", fakeUPnP{describe: "hello"}, ""},
		{"deep description", fakeUPnP{describe: `<root xmlns="urn:schemas-upnp-org:device-1-0">` + many + `</root>`}, ""},
		{"endless description", fakeUPnP{describe: "<root>" + strings.Repeat("x", 2*maxXML)}, ""},
		{"control elsewhere", fakeUPnP{describe: `<root xmlns="urn:schemas-upnp-org:device-1-0"><device><serviceList><service>` +
			`<serviceType>` + wanServices[1] + `</serviceType><controlURL>http://192.168.1.9/</controlURL></service></serviceList></device></root>`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := router(func(r *fakeRouter) { r.upnp = &tt.upnp })
			within(t, func(b *bench) {
				if tt.want == "" {
					b.quiet(time.Minute)
					if s := b.m.Status(); s.Err == "" {
						t.Errorf("status %+v", s)
					}
					return
				}
				b.expect(5*time.Second, tt.want)
			}, r)
		})
	}
}

// A port that another host has is left to it.
func TestUPnPConflict(t *testing.T) {
	r := router(func(r *fakeRouter) { r.upnp = &fakeUPnP{services: ipConn1, taken: []uint16{41820}} })
	within(t, func(b *bench) {
		select {
		case a := <-b.changes:
			if a.Addr() != external || a.Port() == 41820 || a.Port() < 1024 {
				t.Errorf("mapped %v", a)
			}
			time.Sleep(2 * time.Hour)
			if p, _ := r.mapped(); p != a.Port() {
				t.Errorf("now at port %d, was %v", p, a)
			}
		case <-time.After(5 * time.Second):
			t.Error("no mapping")
		}
	}, r)
}

// Every service refuses: that is why, and the end of it.
func TestRefused(t *testing.T) {
	r := router(func(r *fakeRouter) { r.pcp, r.pmp, r.refuse, r.upnp = true, true, 2, &fakeUPnP{services: wanServices} })
	within(t, func(b *bench) {
		b.quiet(5 * time.Second)
		s := b.m.Status()
		for _, part := range []string{"pcp: the router refuses with code 2", "nat-pmp: the router refuses with code 2", "upnp error 606"} {
			if !strings.Contains(s.Err, part) {
				t.Errorf("error %q does not say %q", s.Err, part)
			}
		}
		if !*s.PCP || !*s.NATPMP || !*s.UPnP {
			t.Errorf("status %+v", s)
		}
	}, r)
}
