package relayserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// changeRequest is the attribute of RFC 5780 §7.2.
type changeRequest uint32

func (c changeRequest) AddTo(m *stun.Message) error {
	m.Add(stun.AttrChangeRequest, binary.BigEndian.AppendUint32(nil, uint32(c)))
	return nil
}

// attribute is any other.
type attribute struct {
	t     stun.AttrType
	value []byte
}

func (a attribute) AddTo(m *stun.Message) error {
	m.Add(a.t, a.value)
	return nil
}

func stunMessage(t testing.TB, setters ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID, stun.BindingRequest}, setters...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func TestAnswerSTUN(t *testing.T) {
	from4, at4 := netip.MustParseAddrPort("198.51.100.7:4711"), netip.MustParseAddrPort("192.0.2.1:9000")
	from6, at6 := netip.MustParseAddrPort("[2001:db8::7]:4711"), netip.MustParseAddrPort("[2001:db8::1]:9000")
	var none netip.AddrPort
	unknown := attribute{0x7ff0, []byte("what?")}
	for _, tt := range []struct {
		name      string
		from, at  netip.AddrPort
		other     uint16
		setters   []stun.Setter
		refused   []stun.AttrType // 420 with these
		fromOther bool
		origin    netip.AddrPort // RESPONSE-ORIGIN; zero: it has none, nor OTHER-ADDRESS
	}{
		{"plain", from4, at4, 0, nil, nil, false, none},
		{"plain, IPv6", from6, at6, 0, nil, nil, false, none},
		{"second port", from4, at4, 9001, nil, nil, false, at4},
		{"second port, IPv6", from6, at6, 9001, nil, nil, false, at6},
		{"change nothing", from4, at4, 0, []stun.Setter{changeRequest(0)}, nil, false, none},
		{"change port", from4, at4, 9001, []stun.Setter{changeRequest(changePort)}, nil, true, netip.MustParseAddrPort("192.0.2.1:9001")},
		{"change port, and there is none", from4, at4, 0, []stun.Setter{changeRequest(changePort)}, []stun.AttrType{stun.AttrChangeRequest}, false, none},
		{"change address", from4, at4, 9001, []stun.Setter{changeRequest(changeIP)}, []stun.AttrType{stun.AttrChangeRequest}, false, none},
		{"change both", from4, at4, 9001, []stun.Setter{changeRequest(changeIP | changePort)}, []stun.AttrType{stun.AttrChangeRequest}, false, none},
		{"arrived at an unknown address", from4, netip.MustParseAddrPort("0.0.0.0:9000"), 9001, nil, nil, false, none},
		{"fingerprint", from6, at6, 9001, []stun.Setter{stun.Fingerprint}, nil, false, at6},
		{"software", from4, at4, 0, []stun.Setter{stun.NewSoftware("test")}, nil, false, none},
		{"a user", from4, at4, 0, []stun.Setter{stun.NewUsername("me"), stun.NewShortTermIntegrity("secret")}, nil, false, none},
		{"unknown", from4, at4, 0, []stun.Setter{unknown}, []stun.AttrType{0x7ff0}, false, none},
		{"unknown, IPv6 and fingerprint", from6, at6, 0, []stun.Setter{
			unknown, unknown, unknown, unknown, unknown, unknown, stun.Fingerprint,
		}, []stun.AttrType{0x7ff0, 0x7ff0, 0x7ff0, 0x7ff0}, false, none},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := stunMessage(t, tt.setters...)
			if !isBindingRequest(data) {
				t.Fatal("it is no binding request")
			}
			answer, ok := answerSTUN(stunRequest{slices.Clone(data), tt.from, tt.at, tt.other})
			if !ok {
				t.Fatal("no answer")
			}
			if len(answer.data) > maxAnswer {
				t.Errorf("the answer has %d bytes, more than %d", len(answer.data), maxAnswer)
			}
			m := &stun.Message{Raw: answer.data}
			if err := m.Decode(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.TransactionID[:], data[8:20]) {
				t.Error("it has another transaction id")
			}
			if want := slices.Contains(tt.setters, stun.Setter(stun.Fingerprint)); m.Contains(stun.AttrFingerprint) != want || want && stun.Fingerprint.Check(m) != nil {
				t.Error("the fingerprint is wrong")
			}
			if answer.fromOther != tt.fromOther {
				t.Errorf("from the other port: %v, want %v", answer.fromOther, tt.fromOther)
			}
			if len(tt.refused) > 0 {
				var code stun.ErrorCodeAttribute
				var attrs stun.UnknownAttributes
				if code.GetFrom(m) != nil || code.Code != stun.CodeUnknownAttribute || attrs.GetFrom(m) != nil || !slices.Equal(attrs, tt.refused) {
					t.Errorf("answer %v, code %v, attributes %v; want 420 and %v", m.Type, code.Code, attrs, tt.refused)
				}
				return
			}
			var mapped stun.XORMappedAddress
			if err := mapped.GetFrom(m); err != nil || m.Type != stun.BindingSuccess || mapped.Port != 4711 || !mapped.IP.Equal(tt.from.Addr().AsSlice()) {
				t.Errorf("answer %v with %v, %v; want %v", m.Type, mapped, err, tt.from)
			}
			other := none
			if tt.origin.IsValid() {
				other = netip.AddrPortFrom(tt.at.Addr(), tt.other)
			}
			checkOrigin(t, m, tt.origin, other)
		})
	}
}

// checkOrigin wants RESPONSE-ORIGIN and OTHER-ADDRESS to be these; zero ones: to be missing.
func checkOrigin(t *testing.T, m *stun.Message, origin, other netip.AddrPort) {
	t.Helper()
	for name, tt := range map[string]struct {
		attr stun.AttrType
		want netip.AddrPort
	}{"origin": {stun.AttrResponseOrigin, origin}, "other address": {stun.AttrOtherAddress, other}} {
		var addr stun.MappedAddress
		var got netip.AddrPort
		if err := addr.GetFromAs(m, tt.attr); err == nil {
			ip, _ := netip.AddrFromSlice(addr.IP)
			got = netip.AddrPortFrom(ip.Unmap(), uint16(addr.Port))
		}
		if got != tt.want {
			t.Errorf("the %s is %v, want %v", name, got, tt.want)
		}
	}
}

func TestNotABindingRequest(t *testing.T) {
	good := stunMessage(t)
	broken := func(f func(b []byte) []byte) []byte { return f(slices.Clone(good)) }
	for name, data := range map[string][]byte{
		"empty":            {},
		"short":            good[:19],
		"long":             append(slices.Clone(good), make([]byte, maxRequest)...),
		"no cookie":        broken(func(b []byte) []byte { b[4]++; return b }),
		"a response":       broken(func(b []byte) []byte { b[0]++; return b }),
		"allocate":         broken(func(b []byte) []byte { b[1] = 3; return b }),
		"length too great": broken(func(b []byte) []byte { b[3] = 4; return b }),
		"length odd":       broken(func(b []byte) []byte { b[3] = 1; return append(b, 0) }),
	} {
		if isBindingRequest(data) {
			t.Errorf("%s: taken for a binding request", name)
		}
	}
	bad := stunMessage(t, stun.Fingerprint)
	bad[len(bad)-1]++
	if _, ok := answerSTUN(stunRequest{data: bad, from: netip.MustParseAddrPort("192.0.2.1:1")}); ok {
		t.Error("a wrong fingerprint was answered")
	}
}

func FuzzSTUN(f *testing.F) {
	f.Add(stunMessage(f))
	f.Add(stunMessage(f, changeRequest(changePort), stun.Fingerprint))
	f.Add(stunMessage(f, attribute{0x7ff0, nil}, stun.NewUsername("me")))
	from, at := netip.MustParseAddrPort("[2001:db8::7]:4711"), netip.MustParseAddrPort("[2001:db8::1]:9000")
	f.Fuzz(func(t *testing.T, data []byte) {
		if !isBindingRequest(data) {
			return
		}
		answer, ok := answerSTUN(stunRequest{data, from, at, 9001})
		if !ok {
			return
		}
		if len(answer.data) > maxAnswer {
			t.Errorf("%d bytes answer %d", len(answer.data), len(data))
		}
		if m := (&stun.Message{Raw: answer.data}); m.Decode() != nil || m.Type.Class == stun.ClassRequest {
			t.Errorf("the answer %x is none", answer.data)
		}
	})
}

// startSTUN runs a responder on addr until the test ends.
func startSTUN(t *testing.T, addr string) *stunServer {
	t.Helper()
	var s *stunServer
	for range 20 { // a free port whose neighbour is free
		probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
		if err != nil {
			t.Skipf("skipped: %v", err)
		}
		local := probe.LocalAddr().(*net.UDPAddr).AddrPort()
		probe.Close()
		if s, err = listenSTUN(netip.AddrPortFrom(netip.MustParseAddr(addr), local.Port())); err == nil && s.secondPort() != 0 {
			break
		}
		closeSockets(s.sockets)
	}
	if s.secondPort() == 0 {
		t.Fatal("no two ports are free")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return s
}

func TestSTUNSockets(t *testing.T) {
	for _, tt := range []struct{ name, listen, to string }{
		{"IPv4", "127.0.0.1", "127.0.0.1"},
		{"all, over IPv4", "::", "127.0.0.1"},
		{"all, over IPv4, at a second address", "::", "127.0.0.2"},
		{"all, over IPv6", "::", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startSTUN(t, tt.listen)
			to := netip.AddrPortFrom(netip.MustParseAddr(tt.to), s.port)
			conn, err := net.ListenUDP("udp", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			for _, flags := range []changeRequest{0, changePort} {
				conn.WriteToUDPAddrPort(stunMessage(t, flags), to)
				buf := make([]byte, 1500)
				n, from, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					t.Fatal(err)
				}
				want := to
				if flags == changePort {
					want = netip.AddrPortFrom(to.Addr(), s.secondPort())
				}
				if got := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); got != want {
					t.Errorf("flags %d: the answer came from %v, want %v", flags, got, want)
				}
				m := &stun.Message{Raw: buf[:n]}
				var mapped stun.XORMappedAddress
				if m.Decode() != nil || mapped.GetFrom(m) != nil || mapped.Port != conn.LocalAddr().(*net.UDPAddr).Port {
					t.Errorf("flags %d: answer %v with %v", flags, m, mapped)
				}
				checkOrigin(t, m, want, netip.AddrPortFrom(to.Addr(), s.secondPort()))
			}
		})
	}
}

// Whoever asks under a foreign address has it flooded no more than a bucket lets through.
func TestSTUNFlood(t *testing.T) {
	s := startSTUN(t, "127.0.0.1")
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	request := stunMessage(t)
	for deadline := began.Add(10 * time.Second); s.limited.Load() < 1000; {
		conn.Write(request)
		conn.Write([]byte("something else"))
		if time.Now().After(deadline) {
			t.Fatalf("%d requests were answered, %d not", s.answered.Load(), s.limited.Load())
		}
	}
	if most := stunBurst + stunRate*time.Since(began).Seconds() + 1; float64(s.answered.Load()) > most {
		t.Errorf("%d requests were answered, more than %.0f", s.answered.Load(), most)
	}
	if s.ignored.Load() == 0 {
		t.Error("nothing was ignored")
	}
}
