package discovery

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/pion/stun/v3"
)

func vectors(t testing.TB) (names []string, mapped []netip.AddrPort, pkts [][]byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/rfc5769.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		pkt, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatalf("%s: %v", f[0], err)
		}
		var a netip.AddrPort
		if f[1] != "-" {
			a = netip.MustParseAddrPort(f[1])
		}
		names, mapped, pkts = append(names, f[0]), append(mapped, a), append(pkts, pkt)
	}
	return names, mapped, pkts
}

func TestVectors(t *testing.T) {
	names, mapped, pkts := vectors(t)
	if len(names) != 4 {
		t.Fatalf("%d vectors", len(names))
	}
	for i, pkt := range pkts {
		id, request, ok := stunID(pkt)
		if !ok || !bytes.Equal(id[:], pkt[8:20]) || request == mapped[i].IsValid() {
			t.Errorf("%s: header: id %x, request %v, ok %v", names[i], id, request, ok)
		}
		r, err := parseReply(pkt)
		if !mapped[i].IsValid() {
			if err != errSTUN {
				t.Errorf("%s: a request was taken for a response: %v, %v", names[i], r, err)
			}
			continue
		}
		if err != nil || r.mapped != mapped[i] {
			t.Errorf("%s: got %v, %v, want %v", names[i], r.mapped, err, mapped[i])
		}
		for at := range pkt {
			if typ := len(pkt) - 8; at == typ || at == typ+1 {
				continue // it would be no fingerprint then
			}
			bad := bytes.Clone(pkt)
			bad[at] ^= 1
			if _, err := parseReply(bad); err != errSTUN {
				t.Errorf("%s: changed at %d: the fingerprint did not tell", names[i], at)
			}
		}
		for n := range pkt {
			if _, err := parseReply(pkt[:n]); err != errSTUN {
				t.Errorf("%s: cut at %d: no error", names[i], n)
			}
		}
	}
}

func TestRequest(t *testing.T) {
	id := newTxID()
	for _, change := range []uint32{0, changePort, changePort | changeAddr} {
		m := new(stun.Message)
		if err := stun.Decode(bindingRequest(id, change), m); err != nil {
			t.Fatal(err)
		}
		if m.Type != stun.BindingRequest || m.TransactionID != id || stun.Fingerprint.Check(m) != nil {
			t.Errorf("change %d: got %v", change, m)
		}
		v, err := m.Get(stun.AttrChangeRequest)
		if change == 0 {
			if err == nil {
				t.Error("CHANGE-REQUEST in a plain request")
			}
			continue
		}
		if err != nil || !bytes.Equal(v, []byte{0, 0, 0, byte(change)}) {
			t.Errorf("CHANGE-REQUEST = %x, %v", v, err)
		}
	}
}

// reply builds responses with any attributes.
func reply(id txID, typ stun.MessageType, with ...stun.Setter) []byte {
	m := stun.New()
	m.TransactionID = id
	m.SetType(typ)
	m.WriteHeader()
	for _, s := range with {
		if err := s.AddTo(m); err != nil {
			panic(err)
		}
	}
	return m.Raw
}

func xored(a string) stun.Setter {
	ap := netip.MustParseAddrPort(a)
	return &stun.XORMappedAddress{IP: net.IP(ap.Addr().AsSlice()), Port: int(ap.Port())}
}

func other(a netip.AddrPort) stun.Setter {
	return &stun.OtherAddress{IP: net.IP(a.Addr().AsSlice()), Port: int(a.Port())}
}

func TestParseReply(t *testing.T) {
	id := newTxID()
	raw := func(typ stun.AttrType, v ...byte) stun.Setter { return stun.RawAttribute{Type: typ, Value: v} }
	ok := xored("192.0.2.1:5000")
	for _, tt := range []struct {
		name string
		pkt  []byte
		want stunReply
		bad  bool
	}{
		{"plain", reply(id, stun.BindingSuccess, ok), stunReply{mapped: netip.MustParseAddrPort("192.0.2.1:5000")}, false},
		{
			"old server", reply(id, stun.BindingSuccess, raw(stun.AttrMappedAddress, 0, 1, 0x13, 0x88, 192, 0, 2, 1)),
			stunReply{mapped: netip.MustParseAddrPort("192.0.2.1:5000")},
			false,
		},
		{
			"other address", reply(id, stun.BindingSuccess, ok, other(netip.MustParseAddrPort("192.0.2.9:3479"))),
			stunReply{mapped: netip.MustParseAddrPort("192.0.2.1:5000"), other: netip.MustParseAddrPort("192.0.2.9:3479")},
			false,
		},
		{"error", reply(id, stun.BindingError, stun.CodeUnknownAttribute), stunReply{code: 420}, false},
		{"error without a code", reply(id, stun.BindingError), stunReply{}, true},
		{"nothing mapped", reply(id, stun.BindingSuccess), stunReply{}, true},
		{"indication", reply(id, stun.NewType(stun.MethodBinding, stun.ClassIndication), ok), stunReply{}, true},
		{"another method", reply(id, stun.NewType(stun.MethodAllocate, stun.ClassSuccessResponse), ok), stunReply{}, true},
		{"port 0", reply(id, stun.BindingSuccess, xored("192.0.2.1:0")), stunReply{}, true},
		{"any address", reply(id, stun.BindingSuccess, xored("0.0.0.0:5000")), stunReply{}, true},
		{"multicast", reply(id, stun.BindingSuccess, xored("224.0.0.1:5000")), stunReply{}, true},
		{"broadcast", reply(id, stun.BindingSuccess, xored("255.255.255.255:5000")), stunReply{}, true},
		{"short address", reply(id, stun.BindingSuccess, raw(stun.AttrMappedAddress, 0, 1, 1, 1, 192, 0, 2)), stunReply{}, true},
		{"long address", reply(id, stun.BindingSuccess, raw(stun.AttrMappedAddress, 0, 1, 1, 1, 192, 0, 2, 1, 0)), stunReply{}, true},
		{"wrong family", reply(id, stun.BindingSuccess, raw(stun.AttrMappedAddress, 0, 3, 1, 1, 192, 0, 2, 1)), stunReply{}, true},
		{"short other", reply(id, stun.BindingSuccess, ok, raw(stun.AttrOtherAddress, 0, 1, 1)), stunReply{}, true},
		{"something after it", append(reply(id, stun.BindingSuccess, ok), 0), stunReply{}, true},
	} {
		got, err := parseReply(tt.pkt)
		if got != tt.want || (err == errSTUN) != tt.bad || (err != nil) != tt.bad {
			t.Errorf("%s: got %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
}

func FuzzReply(f *testing.F) {
	_, _, pkts := vectors(f)
	for _, p := range pkts {
		f.Add(p)
	}
	f.Add(reply(txID{}, stun.BindingSuccess, xored("192.0.2.1:1"), other(netip.MustParseAddrPort("192.0.2.9:3479"))))
	f.Add(reply(txID{}, stun.BindingError, stun.CodeUnknownAttribute))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		before := bytes.Clone(pkt)
		r, err := parseReply(pkt)
		if !bytes.Equal(before, pkt) {
			t.Fatal("the packet was changed")
		}
		switch {
		case err != nil && (err != errSTUN || r.mapped.IsValid()):
			t.Fatalf("%v with %v", r, err)
		case err == nil && r.code == 0 && (!r.mapped.IsValid() || r.mapped.Port() == 0 || r.mapped.Addr().IsUnspecified()):
			t.Fatalf("a response without an address: %+v", r)
		case err == nil && r.mapped.Addr().Is4In6():
			t.Fatalf("not unmapped: %v", r.mapped)
		}
	})
}
