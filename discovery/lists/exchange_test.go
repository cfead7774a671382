package lists

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// serve answers DNS questions by UDP and TCP at a port of the loopback until the test ends.
func serve(t *testing.T, handle dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // after both are shut down
	for _, s := range []*dns.Server{{Listener: l, Handler: handle}, {PacketConn: pc, Handler: handle}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() {
			if err := s.ActivateAndServe(); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return netip.MustParseAddrPort(l.Addr().String())
}

// silent is a port at which nobody answers.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

func client(servers ...netip.AddrPort) resolver {
	return New(Config{Resolvers: servers}).resolver
}

// reply answers a question with records.
func reply(t testing.TB, w dns.ResponseWriter, q *dns.Msg, records ...string) {
	m := message(t, q.Question[0].Name, q.Question[0].Qtype, records...)
	_ = w.WriteMsg(m.SetReply(q))
}

func overTCP(w dns.ResponseWriter) bool {
	_, ok := w.RemoteAddr().(*net.TCPAddr)
	return ok
}

func TestList(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if opt := q.IsEdns0(); opt == nil || opt.UDPSize() != 1232 || !q.RecursionDesired {
			t.Errorf("question %v", q)
		}
		switch q.Question[0].Qtype {
		case dns.TypeSRV:
			reply(t, w, q, listName+" 120 IN SRV 1 2 3 a.example.org.")
		case dns.TypeTXT:
			reply(t, w, q, listName+` 60 IN TXT "a=192.0.2.1:7"`)
		case dns.TypeA:
			reply(t, w, q, q.Question[0].Name+" 600 IN A 192.0.2.5")
		case dns.TypeAAAA:
			reply(t, w, q, q.Question[0].Name+" 500 IN AAAA 2001:db8::5")
		}
	})
	c := client(server)
	a, err := c.list(t.Context(), strings.TrimSuffix(listName, "."), dns.TypeSRV)
	if err != nil || len(a.records) != 1 || a.records[0].String() != "a.example.org:3" || a.ttl != 2*time.Minute {
		t.Errorf("SRV: %+v, %v", a, err)
	}
	a, err = c.list(t.Context(), strings.TrimSuffix(listName, "."), dns.TypeTXT)
	if err != nil || len(a.records) != 1 || a.records[0].String() != "192.0.2.1:7" {
		t.Errorf("TXT: %+v, %v", a, err)
	}
	a, err = c.host(t.Context(), "a.example.org.")
	slices.SortFunc(a.addrs, netip.Addr.Compare)
	if err != nil || fmt.Sprint(a.addrs) != "[192.0.2.5 2001:db8::5]" || a.ttl != 500*time.Second {
		t.Errorf("host: %+v, %v", a, err)
	}
}

// What a server may say instead of an answer, each with its word.
func TestServerFails(t *testing.T) {
	say := func(rcode int) dns.HandlerFunc {
		return func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, rcode)) }
	}
	for _, tt := range []struct {
		name   string
		handle dns.HandlerFunc
		err    error
	}{
		{"no name", say(dns.RcodeNameError), errNoName},
		{"server failure", say(dns.RcodeServerFailure), errServFail},
		{"refused", say(dns.RcodeRefused), errRefused},
		{"not implemented", say(dns.RcodeNotImplemented), errRcode},
		{"nothing", say(dns.RcodeSuccess), errNoData},
		{"truncated by TCP too", func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			_ = w.WriteMsg(m)
		}, errNoData},
		{"hangs up", func(w dns.ResponseWriter, q *dns.Msg) {
			if overTCP(w) {
				_ = w.Close()
				return
			}
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			_ = w.WriteMsg(m)
		}, errMalformed},
		{"another id by TCP", func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			if overTCP(w) {
				m.Id++
			}
			_ = w.WriteMsg(m)
		}, errMalformed},
		{"a flood of other ids", func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.Id++
			for range 2 * maxStrays {
				_ = w.WriteMsg(m)
			}
		}, errMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := client(serve(t, tt.handle)).list(t.Context(), listName, dns.TypeSRV)
			if !errors.Is(err, tt.err) {
				t.Errorf("fails with %v, want %v", err, tt.err)
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Datagrams with another id, another question, or garbage are skipped: the answer behind them counts.
func TestStrays(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := message(t, listName, dns.TypeSRV, listName+" 60 IN SRV 1 1 1 evil.").SetReply(q)
		m.Id++
		_ = w.WriteMsg(m)
		m.Id--
		m.Question = []dns.Question{{Name: "other.", Qtype: dns.TypeSRV, Qclass: dns.ClassINET}}
		_ = w.WriteMsg(m)
		m.Question, m.Response = q.Question, false
		_ = w.WriteMsg(m)
		_, _ = w.Write([]byte{1})
		_, _ = w.Write([]byte(strings.Repeat("\xff", 100)))
		reply(t, w, q, listName+" 60 IN SRV 1 1 1 good.")
	})
	a, err := client(server).list(t.Context(), listName, dns.TypeSRV)
	if err != nil || len(a.records) != 1 || a.records[0].Host != "good" {
		t.Errorf("answer %+v, %v", a, err)
	}
}

// An answer of 64 KB comes by TCP, and a bounded part of it is used.
func TestLargeAnswer(t *testing.T) {
	var size atomic.Int64
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Truncated = !overTCP(w)
		for i := 0; !m.Truncated && i < 2600; i++ {
			m.Answer = append(m.Answer, &dns.SRV{
				Hdr:      dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: 60},
				Priority: 1, Weight: 1, Port: uint16(i + 1), Target: fmt.Sprintf("h%04d.", i),
			})
		}
		m.Compress = true
		size.Store(int64(m.Len()))
		_ = w.WriteMsg(m)
	})
	a, err := client(server).list(t.Context(), listName, dns.TypeSRV)
	if err != nil || len(a.records) != maxRecords {
		t.Errorf("%d records, %v", len(a.records), err)
	}
	if n := size.Load(); n < 55_000 || n > dns.MaxMsgSize {
		t.Errorf("the answer has %d bytes, want about 64 KB", n)
	}
}

// A server from before EDNS is asked without.
func TestOldServer(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeFormatError))
			return
		}
		reply(t, w, q, listName+" 60 IN SRV 1 1 1 a.")
	})
	if a, err := client(server).list(t.Context(), listName, dns.TypeSRV); err != nil || len(a.records) != 1 {
		t.Errorf("answer %+v, %v", a, err)
	}
}

// Real time: a silent first server costs a second, and a silent only one five.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	good := serve(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(t, w, q, listName+" 60 IN SRV 1 1 1 a.") })
	start := time.Now()
	a, err := client(silent(t), good).list(t.Context(), listName, dns.TypeSRV)
	if took := time.Since(start); err != nil || len(a.records) != 1 || took < nextServer || took > 4*time.Second {
		t.Errorf("answer %+v, %v after %v", a, err, took)
	}
	start = time.Now()
	_, err = client(silent(t)).list(t.Context(), listName, dns.TypeSRV)
	if took := time.Since(start); !errors.Is(err, errSilent) || took < lookupLimit || took > lookupLimit+3*time.Second {
		t.Errorf("fails with %v after %v", err, took)
	}
}

func TestRace(t *testing.T) {
	type word struct {
		after time.Duration
		err   error
	}
	never := word{time.Hour, nil}
	for _, tt := range []struct {
		name  string
		says  []word // of each server
		err   error
		took  time.Duration
		asked string // which servers, in order
	}{
		{"at once", []word{{0, nil}, never}, nil, 0, "0"},
		{"slow", []word{{2500 * time.Millisecond, nil}}, nil, 2500 * time.Millisecond, "000"},
		{"second server", []word{never, {10 * time.Millisecond, nil}}, nil, nextServer + 10*time.Millisecond, "01"},
		{"first fails", []word{{0, errServFail}, {0, nil}}, nil, 0, "01"},
		{"no name is an answer", []word{{0, errNoName}, {0, nil}}, errNoName, 0, "0"},
		{"both fail", []word{{0, errServFail}, {0, errRefused}}, errRefused, 0, "01"},
		{"one fails", []word{{0, errServFail}}, errServFail, 0, "0"},
		{"one fails, one is silent", []word{{0, errServFail}, never}, errServFail, lookupLimit, "0101"},
		{"all silent", []word{never, never, never}, errSilent, lookupLimit, "0120"},
		{"fifth server", []word{never, never, never, never, {0, nil}}, errSilent, lookupLimit, "0123"},
		{"the first is slow", []word{{1500 * time.Millisecond, nil}, never}, nil, 1500 * time.Millisecond, "01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var servers []netip.AddrPort
				for i := range tt.says {
					servers = append(servers, netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i)))
				}
				ctx, cancel := context.WithTimeout(t.Context(), lookupLimit)
				defer cancel()
				var mu sync.Mutex
				asked, start := "", time.Now()
				_, err := race(ctx, servers, func(ctx context.Context, s netip.AddrPort) (*dns.Msg, error) {
					mu.Lock()
					asked += fmt.Sprint(s.Port())
					mu.Unlock()
					select {
					case <-time.After(tt.says[s.Port()].after):
						return new(dns.Msg), tt.says[s.Port()].err
					case <-ctx.Done():
						return nil, errSilent
					}
				})
				if took := time.Since(start); !errors.Is(err, tt.err) || took != tt.took || asked != tt.asked {
					t.Errorf("%v after %v by %s, want %v after %v by %s", err, took, asked, tt.err, tt.took, tt.asked)
				}
			})
		})
	}
}

func TestBothFamilies(t *testing.T) {
	six, four := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
	type word struct {
		after time.Duration
		err   error
	}
	for _, tt := range []struct {
		name   string
		v6, v4 word
		addrs  []netip.Addr
		ttl    time.Duration
		err    error
		took   time.Duration
	}{
		{"both", word{0, nil}, word{10 * time.Millisecond, nil}, []netip.Addr{six, four}, time.Minute, nil, 10 * time.Millisecond},
		{"IPv6 is silent", word{time.Hour, nil}, word{0, nil}, []netip.Addr{four}, minTTL, nil, otherFamily},
		{"IPv4 only", word{0, errNoData}, word{2 * time.Second, nil}, []netip.Addr{four}, time.Minute, nil, 2 * time.Second},
		{"IPv6 only", word{0, nil}, word{0, errNoData}, []netip.Addr{six}, time.Minute, nil, 0},
		{"IPv6 fails", word{0, errServFail}, word{0, nil}, []netip.Addr{four}, minTTL, nil, 0},
		{"no name", word{0, errNoName}, word{0, errNoName}, nil, 0, errNoName, 0},
		{"half none", word{0, errNoData}, word{time.Second, errServFail}, nil, 0, errServFail, time.Second},
		{"silent", word{time.Hour, nil}, word{time.Hour, nil}, nil, 0, errSilent, lookupLimit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), lookupLimit)
				defer cancel()
				start := time.Now()
				a, err := bothFamilies(ctx, func(ctx context.Context, v6 bool) (answer, error) {
					w, addr := tt.v4, four
					if v6 {
						w, addr = tt.v6, six
					}
					select {
					case <-time.After(w.after):
						return answer{addrs: []netip.Addr{addr}, ttl: time.Minute}, w.err
					case <-ctx.Done():
						return answer{}, errSilent
					}
				})
				took := time.Since(start)
				got := interleave(a.addrs)
				if !errors.Is(err, tt.err) || err == nil && (!slices.Equal(got, tt.addrs) || a.ttl != tt.ttl) || took != tt.took {
					t.Errorf("%v for %v, %v, after %v; want %v for %v, %v, after %v",
						got, a.ttl, err, took, tt.addrs, tt.ttl, tt.err, tt.took)
				}
			})
		})
	}
}

func TestInterleave(t *testing.T) {
	var in []netip.Addr
	for _, s := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.3", "2001:db8::2"} {
		in = append(in, netip.MustParseAddr(s))
	}
	if got := fmt.Sprint(interleave(in)); got != "[2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2 192.0.2.3]" {
		t.Errorf("order %s", got)
	}
}

func TestPlain(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}, errNoName.Error()},
		{&net.DNSError{Err: "i/o timeout", Server: "192.0.2.1:53", IsTimeout: true}, errSilent.Error()},
		{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, errServFail.Error()},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("recvfrom", syscall.ECONNREFUSED)}, "connection refused"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, errSilent.Error()},
		{context.DeadlineExceeded, errSilent.Error()},
	} {
		if got := plain(tt.err); got.Error() != tt.want {
			t.Errorf("plain(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

// Where the system looks lists up, its words and those of the node's own client are the same.
func TestSystem(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		switch name := q.Question[0].Name; {
		case name == "none.":
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
		case name == "fails.":
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
		case name == "closed.":
			reply(t, w, q, "closed. 60 IN SRV 0 0 0 .")
		case q.Question[0].Qtype == dns.TypeSRV:
			reply(t, w, q, name+" 60 IN SRV 2 5 7 b.example.", name+" 60 IN SRV 1 5 7 a.example.")
		case q.Question[0].Qtype == dns.TypeTXT:
			reply(t, w, q, name+` 60 IN TXT "a=h:1 a=192.0.2.1:2"`, name+` 60 IN TXT "x\\y=\"z" `, name+` 60 IN TXT "a=i:3"`)
		case q.Question[0].Qtype == dns.TypeA:
			reply(t, w, q, name+" 60 IN A 192.0.2.5")
		default:
			reply(t, w, q)
		}
	})
	sys := system{&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server.String())
	}}}
	a, err := sys.list(t.Context(), "list.", dns.TypeSRV)
	if err != nil || fmt.Sprint(a.records) != "[a.example:7 b.example:7]" || a.records[1].priority != 2 || a.ttl != unknownTTL {
		t.Errorf("SRV: %+v, %v", a, err)
	}
	a, err = sys.list(t.Context(), "list.", dns.TypeTXT)
	if err != nil || len(a.records) != 3 {
		t.Errorf("TXT: %+v, %v", a, err)
	}
	a, err = sys.host(t.Context(), "h.")
	if err != nil || fmt.Sprint(a.addrs) != "[192.0.2.5]" {
		t.Errorf("host: %+v, %v", a, err)
	}
	for name, want := range map[string]error{"none": errNoName, "fails": errServFail, "closed": errNone} {
		if _, err := sys.list(t.Context(), name, dns.TypeSRV); !errors.Is(err, want) {
			t.Errorf("%s fails with %v, want %v", name, err, want)
		}
	}
	if _, err := sys.list(t.Context(), "fails.", dns.TypeTXT); !errors.Is(err, errServFail) {
		t.Errorf("TXT fails with %v", err)
	}
}

// All of it, by sockets: a list, a host of it, addresses.
func TestByDNS(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		switch name := q.Question[0].Name; q.Question[0].Qtype {
		case dns.TypeSRV:
			reply(t, w, q, name+" 60 IN SRV 1 5 41820 host.example.")
		case dns.TypeTXT:
			reply(t, w, q, name+` 60 IN TXT "a=192.0.2.1:7"`)
		case dns.TypeA:
			reply(t, w, q, name+" 60 IN A 192.0.2.5")
		case dns.TypeAAAA:
			reply(t, w, q, name+" 60 IN AAAA 2001:db8::5")
		}
	})
	found := make(chan netip.AddrPort, 64)
	l := New(Config{
		Entries: []string{"user.example:9"}, DNS: "example.org", Resolvers: []netip.AddrPort{silent(t), server},
		Found: func(addrs []netip.AddrPort, _ string) {
			for _, a := range addrs {
				select {
				case found <- a:
				default:
				}
			}
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	want := map[string]bool{
		"[2001:db8::5]:9": true, "192.0.2.5:9": true,
		"[2001:db8::5]:41820": true, "192.0.2.5:41820": true, "192.0.2.1:7": true,
	}
	for len(want) > 0 && ctx.Err() == nil {
		select {
		case a := <-found:
			delete(want, a.String())
		case <-ctx.Done():
			t.Errorf("not found: %v; %+v", want, l.Results())
		}
	}
	cancel()
	<-ended
}
