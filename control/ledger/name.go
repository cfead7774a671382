package ledger

import (
	"strconv"
	"strings"
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	maxLabel    = 63
	nameHeldFor = 24 * time.Hour // after a revocation
	defaultName = "node"
)

// reservedName tells names that mean something else to resolvers or to the mesh itself.
func reservedName(name string) bool {
	switch name {
	case "localhost", "localdomain", "broadcasthost", "local", "internal", "dns", "ns", "wpad", "isatap":
		return true
	}
	return strings.Trim(name, "0123456789") == ""
}

// validLabel tells an LDH label (RFC 1123 §2.1) in lower case.
func validLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !ldh(s[i]) {
			return false
		}
	}
	return true
}

func ldh(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' }

// SanitizeName makes a label of any host name: its first part in lower case, with a hyphen for every run of what may
// not be in one. What leaves nothing becomes "node"; a number gets that before it.
func SanitizeName(host string) string {
	host, _, _ = strings.Cut(strings.TrimSpace(host), ".")
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(host)) {
		if ldh(c) && c != '-' {
			b.WriteByte(c)
		} else if s := b.String(); s != "" && s[len(s)-1] != '-' {
			b.WriteByte('-')
		}
		if b.Len() == maxLabel {
			break
		}
	}
	name := strings.TrimRight(b.String(), "-")
	switch {
	case name == "":
		return defaultName
	case strings.Trim(name, "0123456789") == "":
		return truncate(defaultName+"-"+name, maxLabel)
	}
	return name
}

// NameClaim is what a member would like to be called.
type NameClaim struct {
	ID      identity.PeerID
	Card    string    // what its card says; empty without a card
	Rename  string    // what the ledger says; it wins
	Revoked time.Time // zero: not revoked
}

// Free is until when, mesh time, a revoked member holds its name.
func (c NameClaim) Free() time.Time { return c.Revoked.Add(nameHeldFor) }

// UniqueNames gives each claimant a name of its own. Claims come in order of admission, revoked members included
// (State.History): of equal names the first keeps it, the others get the first free of -2, -3, …, and so does a
// reserved name. A revoked node holds its name for 24 h. Who claims nothing is not in the result.
func UniqueNames(order []NameClaim, now time.Time) map[identity.PeerID]string {
	names := make(map[identity.PeerID]string, len(order))
	taken := make(map[string]bool, len(order))
	tried := map[string]int{} // the last suffix given to a base: all below it are taken
	for _, c := range order {
		if !c.Revoked.IsZero() && !now.Before(c.Free()) {
			continue
		}
		want := c.Rename
		if want == "" {
			want = c.Card
		}
		if want == "" {
			continue
		}
		if !validLabel(want) {
			want = sanitizeKeepingNumbers(want)
		}
		name := want
		for n := max(tried[want], 1) + 1; taken[name] || reservedName(name); n++ {
			suffix := "-" + strconv.Itoa(n)
			name = truncate(want, maxLabel-len(suffix)) + suffix
			tried[want] = n
		}
		taken[name], names[c.ID] = true, name
	}
	return names
}

// sanitizeKeepingNumbers is SanitizeName for a name that somebody claims: a number stays and gets a suffix.
func sanitizeKeepingNumbers(name string) string {
	if n := strings.ToLower(name); validLabel(n) {
		return n
	}
	return SanitizeName(name)
}

func truncate(s string, limit int) string {
	if len(s) > limit {
		s = strings.TrimRight(s[:limit], "-")
	}
	return s
}
