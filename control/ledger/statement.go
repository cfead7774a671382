package ledger

import (
	"errors"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// Type says what a statement is about. The list is closed; a statement of another type is kept without effect.
type Type string

// The types. Those behind TypeAllow have no effect in this release.
const (
	TypeInvite   Type = "invite"
	TypeRevoke   Type = "revoke"
	TypeKeep     Type = "keep"
	TypeRename   Type = "rename"
	TypeLease    Type = "lease"
	TypeAllow    Type = "allow"
	TypeGrant    Type = "grant"
	TypeUngrant  Type = "ungrant"
	TypeAlias    Type = "alias"
	TypePolicy   Type = "policy"
	TypeSettings Type = "settings"
	TypeRekey    Type = "rekey"
	TypeRelayKey Type = "relay-key"
)

// Statement is an act of authority by an admin. Immutable.
type Statement struct {
	Author identity.PeerID `cbor:"0,keyasint"`
	Prev   []identity.Hash `cbor:"1,keyasint,omitempty"` // its author's last statement; several after a fork
	Seen   []identity.Hash `cbor:"2,keyasint,omitempty"` // others' heads
	Clock  uint64          `cbor:"3,keyasint"`           // 1 + the highest among Prev and Seen
	Time   uint64          `cbor:"4,keyasint"`           // unix milliseconds, by its author's clock
	Type   Type            `cbor:"5,keyasint"`
	Body   []byte          `cbor:"6,keyasint"`
	ID     identity.Hash   `cbor:"-"`
	Signed Signed          `cbor:"-"`

	content any // *InviteTerms, *revocation, *keeping, *renaming, *leasing, *allowing; nil when not understood
	pos     int // in Ledger.log, once there
}

// InviteTerms are what an invite allows.
type InviteTerms struct {
	Key        identity.PeerID `cbor:"0,keyasint"` // admits are signed with its private half, which the token carries
	Tags       []string        `cbor:"1,keyasint,omitempty"`
	Expires    uint64          `cbor:"2,keyasint"` // unix seconds; 0: never
	Uses       uint64          `cbor:"3,keyasint"` // 0: unlimited
	KID        KID             `cbor:"4,keyasint"` // the network key that its PSK comes from
	Generation uint32          `cbor:"5,keyasint"` // that key's place among the network's
}

// The subjects of a revocation. Another one is not understood.
const (
	subjectMember = "member"
	subjectInvite = "invite"
)

type revocation struct {
	Kind    string          `cbor:"0,keyasint"`
	Subject identity.Hash   `cbor:"1,keyasint"`
	Accepts []identity.Hash `cbor:"2,keyasint,omitempty"` // heads of a member's acceptances, or admits of an invite
	Purge   bool            `cbor:"3,keyasint,omitempty"` // also earlier keeps do not save who is not in Accepts
}

type keeping struct {
	Entries []keepEntry `cbor:"0,keyasint"`
}

type keepEntry struct {
	_     struct{} `cbor:",toarray"`
	Admit identity.Hash
	Time  uint64 // of admission as the admin's node had it: later acceptances cannot move it
}

type renaming struct {
	Member identity.PeerID `cbor:"0,keyasint"`
	Name   string          `cbor:"1,keyasint"` // empty: as its card says
}

type leasing struct {
	Member identity.PeerID `cbor:"0,keyasint"`
	Addr   []byte          `cbor:"1,keyasint"` // 4 bytes; none: as computed
}

// Bounds of bodies.
const (
	maxTags    = 16
	maxKeeps   = 64
	maxHonours = 64
)

// ParseStatement reads a statement and checks its form and signature, but not its place in the ledger. A statement
// of an unknown type, or with critical fields that this release does not know, is no error.
func ParseStatement(s Signed, network identity.NetworkID) (*Statement, error) {
	if len(s.Body) > MaxPolicy {
		return nil, ErrTooLarge
	}
	st := new(Statement)
	err := decode(s.Body, st, 6)
	newer := errors.Is(err, ErrNewer)
	if err != nil && !newer {
		return nil, err
	}
	if err := st.check(len(s.Body)); err != nil {
		return nil, err
	}
	if identity.Verify(st.Author, identity.PurposeStatement, network, s.Body, s.Sig) != nil {
		return nil, ErrBadSignature
	}
	st.ID, st.Signed = identity.Sum(identity.PurposeStatement, s.Body), s
	if !newer {
		st.content = parseContent(st.Type, st.Body)
	}
	return st, nil
}

func (s *Statement) check(size int) error {
	if size > MaxStatement && s.Type != TypePolicy {
		return ErrTooLarge
	}
	if s.Clock > maxTime {
		return ErrClockTooHigh
	}
	if len(s.Type) == 0 || len(s.Type) > 32 || len(s.Body) == 0 || s.Clock == 0 || s.Time > maxTime ||
		!ascending(s.Prev, maxHeads) || !ascending(s.Seen, maxSeen(s.Type)) {
		return ErrMalformed
	}
	return nil
}

// maxSeen is small for what must fit into a token.
func maxSeen(t Type) int {
	if t == TypeInvite || t == TypeGrant {
		return 2
	}
	return maxHeads
}

// parseContent is nil for a body that this release does not understand: a newer one may.
func parseContent(t Type, body []byte) any {
	var content interface{ fits() bool }
	var last byte
	switch t {
	case TypeInvite:
		content, last = new(InviteTerms), 5
	case TypeRevoke:
		content, last = new(revocation), 3
	case TypeKeep:
		content, last = new(keeping), 0
	case TypeRename:
		content, last = new(renaming), 1
	case TypeLease:
		content, last = new(leasing), 1
	case TypeAllow:
		content, last = new(allowing), 3
	default:
		return nil
	}
	if decode(body, content, last) != nil || !content.fits() {
		return nil
	}
	return content
}

func (i *InviteTerms) fits() bool {
	for _, tag := range i.Tags {
		if !validLabel(tag) {
			return false
		}
	}
	_, err := identity.PeerIDFromBytes(i.Key[:])
	return err == nil && len(i.Tags) <= maxTags && i.Expires <= maxTime/1000
}

func (i *InviteTerms) expires() time.Time {
	if i.Expires == 0 {
		return time.Time{}
	}
	return fromSeconds(i.Expires)
}

// expired tells whether ms, unix milliseconds, is behind the expiry.
func (i *InviteTerms) expired(ms uint64) bool { return i.Expires != 0 && ms > i.Expires*1000 }

func (r *revocation) fits() bool {
	switch r.Kind {
	case subjectMember:
		return ascending(r.Accepts, maxHeads)
	case subjectInvite:
		return ascending(r.Accepts, maxHonours)
	}
	return false
}

func (k *keeping) fits() bool {
	for _, e := range k.Entries {
		if e.Time > maxTime {
			return false
		}
	}
	return len(k.Entries) <= maxKeeps
}

func (r *renaming) fits() bool { return r.Name == "" || validLabel(r.Name) }

func (l *leasing) fits() bool { return len(l.Addr) == 0 || len(l.Addr) == 4 }

func (l *leasing) addr() netip.Addr {
	a, _ := netip.AddrFromSlice(l.Addr) // the zero Addr for none
	return a
}

// Invite is what the statement allows when it is an invite.
func (s *Statement) Invite() (*InviteTerms, bool) {
	terms, ok := s.content.(*InviteTerms)
	return terms, ok
}

// before is the order of facts: the last one counts.
func (s *Statement) before(o *Statement) bool { return compareStatements(s, o) < 0 }

func compareStatements(a, b *Statement) int {
	switch {
	case a.Clock < b.Clock:
		return -1
	case a.Clock > b.Clock:
		return 1
	}
	return compareHash(a.ID, b.ID)
}

// signStatement fills in the signature. The caller has checked the content.
func signStatement(author *identity.Identity, network identity.NetworkID, st *Statement, content any) Signed {
	st.Author, st.Body = author.ID(), dcbor.Marshal(content)
	body := dcbor.Marshal(st)
	return Signed{body, author.Sign(identity.PurposeStatement, network, body)}
}
