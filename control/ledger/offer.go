package ledger

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// Offer is a kind of thing that a member offers in its card and that counts once an admin allows it.
type Offer string

// The kinds. A statement about another one is kept without effect.
const (
	OfferRelay Offer = "relay" // a relay server; its value is the URL, or "": whichever the member offers
	OfferRoute Offer = "route" // a way to other networks; its value is an IP prefix
	OfferExit  Offer = "exit"  // a way to everywhere; its value is ""
)

// MaxRelayURL is how long the URL of a relay server may be, in bytes.
const MaxRelayURL = 160

// ValidRelayURL reports whether s may stand where members tell of relay servers: https://host[:port][#sha256=HEX].
func ValidRelayURL(s string) bool {
	foreign := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(s) > MaxRelayURL || !strings.HasPrefix(s, "https://") || strings.ContainsFunc(s, foreign) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && u.Hostname() != "" && u.User == nil
}

// allowing is an admin's word on an offer. The last one on a kind, member and value counts.
type allowing struct {
	What   Offer           `cbor:"0,keyasint"`
	Value  string          `cbor:"1,keyasint"`
	Member identity.PeerID `cbor:"2,keyasint"`
	Allow  bool            `cbor:"3,keyasint"`
}

func (a *allowing) fits() bool {
	switch a.What {
	case OfferRelay:
		return a.Value == "" || ValidRelayURL(a.Value)
	case OfferRoute:
		p, err := netip.ParsePrefix(a.Value)
		return err == nil && p == p.Masked() && p.String() == a.Value
	case OfferExit:
		return a.Value == ""
	}
	return false
}

// Allowance is what admins last said about an offer of a member.
type Allowance struct {
	What  Offer
	Value string
	Allow bool
}

// allow takes an admin's word. Later ones come later.
func (t *tally) allow(a *allowing) {
	all := t.state.allowances[a.Member]
	word := Allowance{a.What, a.Value, a.Allow}
	if i := indexOf(all, a.What, a.Value); i >= 0 {
		all[i] = word
		return
	}
	if t.state.allowances == nil {
		t.state.allowances = make(map[identity.PeerID][]Allowance)
	}
	t.state.allowances[a.Member] = append(all, word)
}

func indexOf(all []Allowance, what Offer, value string) int {
	return slices.IndexFunc(all, func(a Allowance) bool { return a.What == what && a.Value == value })
}

// Allowances are the admins' words on the offers of a member, in the order in which they first spoke of each.
func (s *State) Allowances(id identity.PeerID) []Allowance { return slices.Clone(s.allowances[id]) }

// Allows tells whether an offer of a member counts: by the last word on it, by that on all relay servers of the member,
// or because the member is an admin itself. A revoked member's never does.
func (s *State) Allows(id identity.PeerID, what Offer, value string) bool {
	i, ok := s.members[id]
	if !ok || !s.History[i].Revoked.IsZero() {
		return false
	}
	all := s.allowances[id]
	at := indexOf(all, what, value)
	if at < 0 && what == OfferRelay {
		at = indexOf(all, what, "")
	}
	if at < 0 {
		return s.History[i].Admin
	}
	return all[at].Allow
}

// Allow states whether an offer of a member counts; it need not have been made yet. Errors: ErrOffer for a kind or value
// that there is not, ErrUnknownMember, ErrRevoked, ErrNotAdmin.
func (l *Ledger) Allow(
	author *identity.Identity, id identity.PeerID, what Offer, value string, allow bool, now time.Time,
) (Signed, error) {
	a := &allowing{What: what, Value: value, Member: id, Allow: allow}
	if !a.fits() {
		return Signed{}, ErrOffer
	}
	st := l.State(now)
	if _, known := st.Member(id); !known {
		return Signed{}, ErrUnknownMember
	}
	if !st.IsMember(id) {
		return Signed{}, ErrRevoked
	}
	return l.publish(author, TypeAllow, a, now)
}
