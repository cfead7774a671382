package netlab

import "testing"

func TestKindNames(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if name := k.String(); name == "" || seen[name] {
			t.Errorf("kind %d is called %q", int(k), name)
		}
		seen[k.String()] = true
	}
	for kind, want := range map[Kind]string{
		None: "none", AddressRestricted: "address-restricted", CGNAT: "CGNAT", IPv6Only: "IPv6 only", -1: "kind -1", 99: "kind 99",
	} {
		if got := kind.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
