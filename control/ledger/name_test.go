package ledger

import (
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

func TestSanitizeName(t *testing.T) {
	long := strings.Repeat("a", 80)
	for in, want := range map[string]string{
		"web":               "web",
		"Web-01.example.co": "web-01",
		"  my laptop ":      "my-laptop",
		"Jürgen's Mac":      "j-rgen-s-mac",
		"--a--b--":          "a-b",
		"":                  "node",
		"日本":                "node",
		"192.168.1.7":       "node-192",
		"_srv":              "srv",
		long:                long[:63],
	} {
		if got := SanitizeName(in); got != want || !validLabel(got) {
			t.Errorf("SanitizeName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestUniqueNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	ago := func(d time.Duration) time.Time { return epoch.Add(-d) }
	for _, c := range []struct {
		name  string
		claim []NameClaim
		want  []string
	}{
		{"alone", []NameClaim{{Card: "web"}}, []string{"web"}},
		{"no card yet", []NameClaim{{}}, []string{""}},
		{"equal", []NameClaim{{Card: "web"}, {Card: "web"}, {Card: "Web"}}, []string{"web", "web-2", "web-3"}},
		{"suffix is taken", []NameClaim{{Card: "web"}, {Card: "web-2"}, {Card: "web"}}, []string{"web", "web-2", "web-3"}},
		{"suffix was given", []NameClaim{{Card: "web"}, {Card: "web"}, {Card: "web-2"}}, []string{"web", "web-2", "web-2-2"}},
		{"rename wins over the card", []NameClaim{{Card: "web", Rename: "db"}, {Card: "web"}}, []string{"db", "web"}},
		{"rename does not displace", []NameClaim{{Card: "web"}, {Card: "x", Rename: "web"}}, []string{"web", "web-2"}},
		{"reserved", []NameClaim{{Card: "localhost"}, {Card: "dns"}, {Card: "123"}}, []string{"localhost-2", "dns-2", "123-2"}},
		{"not a label", []NameClaim{{Card: "my web"}}, []string{"my-web"}},
		{"long", []NameClaim{{Card: long}, {Card: long}}, []string{long, long[:61] + "-2"}},
		{"revoked today", []NameClaim{{Card: "web", Revoked: ago(time.Hour)}, {Card: "web"}}, []string{"web", "web-2"}},
		{"revoked yesterday", []NameClaim{{Card: "web", Revoked: ago(24 * time.Hour)}, {Card: "web"}}, []string{"", "web"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.claim {
				c.claim[i].ID = identity.PeerID{byte(i + 1)}
			}
			got := UniqueNames(c.claim, epoch)
			for i, want := range c.want {
				if got[c.claim[i].ID] != want {
					t.Errorf("claim %d is named %q, want %q", i, got[c.claim[i].ID], want)
				}
			}
		})
	}
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	w.join(seeded(10), w.invite(0, 0), w.founder)
	for _, c := range []struct {
		id   identity.PeerID
		name string
		want error
	}{
		{seeded(10).ID(), "db", nil},
		{seeded(10).ID(), "", nil},
		{seeded(10).ID(), "Not A Name", ErrName},
		{seeded(11).ID(), "db", ErrUnknownMember},
	} {
		if _, err := w.Rename(w.founder, c.id, c.name, w.now); err != c.want {
			t.Errorf("rename to %q: %v, want %v", c.name, err, c.want)
		}
		if m, _ := w.state().Member(c.id); c.want == nil && m.Rename != c.name {
			t.Errorf("renamed %q, want %q", m.Rename, c.name)
		}
	}
}
