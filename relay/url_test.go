package relay

import (
	"errors"
	"strings"
	"testing"
)

const pinHex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func TestParseURL(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string // String of what was read
		err  error
	}{
		{"https://relay.example.net", "https://relay.example.net", nil},
		{"https://relay.example.net/", "https://relay.example.net", nil},
		{"HTTPS://Relay.Example.NET.:443", "https://relay.example.net", nil},
		{"https://relay.example.net:9000", "https://relay.example.net:9000", nil},
		{"https://relay.example.net:0443", "https://relay.example.net", nil},
		{"https://xn--bcher-kva.example", "https://xn--bcher-kva.example", nil},
		{"https://192.0.2.1:9000#sha256=" + pinHex, "https://192.0.2.1:9000#sha256=" + pinHex, nil},
		{"https://192.0.2.1/#sha256=" + strings.ToUpper(pinHex), "https://192.0.2.1#sha256=" + pinHex, nil},
		{"https://[2001:DB8::1]", "https://[2001:db8::1]", nil},
		{"https://[2001:db8:0:0::1]:9000", "https://[2001:db8::1]:9000", nil},
		{"https://[::ffff:192.0.2.1]:9000", "https://192.0.2.1:9000", nil},
		{"https://localhost:1", "https://localhost:1", nil},

		{"", "", ErrScheme},
		{"relay.example.net", "", ErrScheme},
		{"http://relay.example.net", "", ErrScheme},
		{"https:/relay.example.net", "", ErrScheme},
		{"https://", "", ErrHost},
		{"https:///", "", ErrHost},
		{"https://:9000", "", ErrHost},
		{"https://2001:db8::1", "", ErrHost},
		{"https://[192.0.2.1]", "", ErrHost},
		{"https://[fe80::1%eth0]", "", ErrHost},
		{"https://[2001:db8::1", "", ErrHost},
		{"https://[2001:db8::1]x:9000", "", ErrHost},
		{"https://a..b", "", ErrHost},
		{"https://-a.example", "", ErrHost},
		{"https://a b.example", "", ErrHost},
		{"https://127.1", "", ErrHost},
		{"https://bücher.example", "", ErrHost},
		{"https://\u212aelvin.example", "", ErrHost}, // a letter that becomes ASCII in lower case
		{"https://" + strings.Repeat("a", 64) + ".example", "", ErrHost},
		{"https://" + strings.Repeat("a.", 127) + "example", "", ErrHost},
		{"https://relay.example.net:", "", ErrPort},
		{"https://relay.example.net:0", "", ErrPort},
		{"https://relay.example.net:65536", "", ErrPort},
		{"https://relay.example.net:https", "", ErrPort},
		{"https://relay.example.net:-1", "", ErrPort},
		{"https://user@relay.example.net", "", ErrPath},
		{"https://relay.example.net/path", "", ErrPath},
		{"https://relay.example.net?query", "", ErrPath},
		{"https://relay.example.net#", "", ErrPinHex},
		{"https://relay.example.net#" + pinHex, "", ErrPinHex},
		{"https://relay.example.net#sha1=" + pinHex, "", ErrPinHex},
		{"https://relay.example.net#sha256=" + pinHex[1:], "", ErrPinHex},
		{"https://relay.example.net#sha256=x" + pinHex[1:], "", ErrPinHex},
		{"https://relay.example.net#sha256=" + strings.Repeat("0", 64), "", ErrPinHex},
	} {
		u, err := ParseURL(tt.text)
		if !errors.Is(err, tt.err) {
			t.Errorf("ParseURL(%q): error %v, want %v", tt.text, err, tt.err)
			continue
		}
		if err != nil {
			if !strings.Contains(err.Error(), tt.err.Error()) {
				t.Errorf("ParseURL(%q): the error %q does not say what is wrong", tt.text, err)
			}
			continue
		}
		if got := u.String(); got != tt.want {
			t.Errorf("ParseURL(%q) = %q, want %q", tt.text, got, tt.want)
		}
		if again, err := ParseURL(u.String()); err != nil || again != u {
			t.Errorf("ParseURL(%q) = %+v, %v, want %+v", u.String(), again, err, u)
		}
	}
}

func TestURLHostPort(t *testing.T) {
	for text, want := range map[string]string{
		"https://relay.example.net":            "relay.example.net:443",
		"https://[2001:db8::1]:9000":           "[2001:db8::1]:9000",
		"https://192.0.2.1":                    "192.0.2.1:443",
		"https://192.0.2.1:1#sha256=" + pinHex: "192.0.2.1:1",
	} {
		u, err := ParseURL(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := u.HostPort(); got != want {
			t.Errorf("HostPort of %s = %q, want %q", text, got, want)
		}
		if got := u.url().String(); strings.Contains(got, "#") || !strings.HasPrefix(text, got) {
			t.Errorf("the URL of %s for net/http is %s", text, got)
		}
	}
}

// What parses is written in one form only, and that form means the same.
func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"https://relay.example.net", "https://192.0.2.1:9000#sha256=" + pinHex, "https://[2001:db8::1]:9000",
		"https://[::1]", "https://bücher.example/", "https://a:1:2", "https://[fe80::1%25eth0]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURL(text)
		if err != nil {
			return
		}
		again, err := ParseURL(u.String())
		if err != nil || again != u {
			t.Fatalf("%q is read as %+v, written as %q, and read as %+v, %v", text, u, u.String(), again, err)
		}
		if again.String() != u.String() {
			t.Fatalf("%q is written as %q and %q", text, u, again)
		}
		if u.url().Host == "" {
			t.Fatalf("%q has no host for net/http", text)
		}
	})
}
