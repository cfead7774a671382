package lists

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestParseEntry(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tt := range []struct {
		in, want string
		err      error
	}{
		{"192.0.2.1:7", "192.0.2.1:7", nil},
		{" 192.0.2.1\t", "192.0.2.1:41820", nil},
		{"[2001:db8::1]:65535", "[2001:db8::1]:65535", nil},
		{"2001:DB8:0::1", "[2001:db8::1]:41820", nil},
		{"[2001:db8::1]", "[2001:db8::1]:41820", nil},
		{"[::ffff:192.0.2.1]:7", "192.0.2.1:7", nil},
		{"[fe80::1%eth0]:7", "[fe80::1%eth0]:7", nil},
		{"Host.Example.ORG.:7", "host.example.org:7", nil},
		{"host", "host:41820", nil},
		{"my_host-1.lan:1", "my_host-1.lan:1", nil},
		{long + ".org", long + ".org:41820", nil},
		{"", "", errEmpty},
		{"  ", "", errEmpty},
		{"host:", "", errPort},
		{"host:0", "", errPort},
		{"host:65536", "", errPort},
		{"host:+7", "", errPort},
		{"host:-7", "", errPort},
		{"host:http", "", errPort},
		{"2001:db8::zz", "", errPort},
		{"2001:db8::1:41820:5:6:7:8:9", "", errHost},
		{":7", "", errHost},
		{".", "", errHost},
		{"a..b:7", "", errHost},
		{"-a:7", "", errHost},
		{"a-.b:7", "", errHost},
		{long + "a.org", "", errHost},
		{strings.Repeat("a.", 127) + "org", "", errHost},
		{"192.0.2.256:7", "", errHost},
		{"1.2.3", "", errHost},
		{"[192.0.2.1]:7", "", errHost},
		{"[192.0.2.1]", "", errHost},
		{"::ffff:192.0.2.1:7", "", errHost},
		{"[2001:db8::1]7", "", errHost},
		{"[2001:db8::1]:", "", errPort},
		{"[fe80::1%e]h]:7", "", errHost},
		{"[2001:db8::1:7", "", errHost},
		{"2001:db8::1]:7", "", errHost},
		{"[host]:7", "", errHost},
		{"[", "", errHost},
		{"[]", "", errHost},
		{"[:7", "", errHost},
		{"udp://host:7", "", errHost},
		{"two hosts:7", "", errHost},
		{"bücher.example:7", "", errHost},
	} {
		got, err := ParseEntry(tt.in)
		if !errors.Is(err, tt.err) {
			t.Errorf("ParseEntry(%q) fails with %v, want %v", tt.in, err, tt.err)
		} else if err == nil && got.String() != tt.want {
			t.Errorf("ParseEntry(%q) = %v, want %v", tt.in, got, tt.want)
		}
	}
}

func TestParseName(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"example.org", "_meshnet._udp.example.org"},
		{" _MESHNET._udp.Example.org. ", "_meshnet._udp.example.org"},
		{"lan", "_meshnet._udp.lan"},
		{"xn--bcher-kva.example", "_meshnet._udp.xn--bcher-kva.example"},
		{"", ""},
		{"a..b", ""},
		{"example.org:7", ""},
		{"192.0.2.1", ""},
		{strings.Repeat("abc.", 61) + "org", ""}, // fits alone, but not with the service before it
	} {
		got, err := ParseName(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("ParseName(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

// What parses is written so that it parses to the same.
func FuzzParseEntry(f *testing.F) {
	for _, s := range []string{"host:7", "192.0.2.1", "[2001:db8::1%eth0]:7", "[::ffff:1.2.3.4]", "a.b.:1", "[]:", "::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEntry(s)
		if err != nil {
			return
		}
		if e.Port == 0 || e.IsLiteral() == (e.Host != "") || e.Addr.Is4In6() {
			t.Errorf("ParseEntry(%q) = %#v", s, e)
		}
		again, err := ParseEntry(e.String())
		if err != nil || again != e {
			t.Errorf("ParseEntry(%q) is %q, which parses to %v, %v", s, e, again, err)
		}
	})
}
