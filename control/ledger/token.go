package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/mr-tron/base58"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// The form and bounds of a token.
const (
	TokenPrefix  = "mesh1"
	TokenVersion = 1
	MaxToken     = 1600 // characters
	MaxHints     = 4
	maxGrants    = 2
	MaxPass      = 256 // bytes
	checksumLen  = 4
)

// Token is all that a stranger needs to join: the invite with its secret, and where to ask. It is a password. String
// is the token itself; printed or logged as a value it hides.
type Token struct {
	Network   identity.NetworkID
	Invite    Signed
	Seed      identity.Secret // the invite's Ed25519 seed
	PSK       identity.Secret // InvitePSK
	Grants    []Signed        // at most 2, leading to the invite's author
	Hints     []Hint          // at most MaxHints
	RelayPass []byte
}

// Hint is a node that may let the joiner in.
type Hint struct {
	Addr string          `cbor:"0,keyasint"` // host:port or a relay's URL
	Node identity.PeerID `cbor:"1,keyasint"`
}

// IsRelay reports whether Addr is a relay server's URL.
func (h Hint) IsRelay() bool { return strings.HasPrefix(h.Addr, "https://") }

type tokenWire struct {
	Version   uint64             `cbor:"0,keyasint"`
	Network   identity.NetworkID `cbor:"1,keyasint"`
	Invite    []byte             `cbor:"2,keyasint"`
	Seed      identity.Secret    `cbor:"3,keyasint"`
	PSK       identity.Secret    `cbor:"4,keyasint"`
	Grants    [][]byte           `cbor:"5,keyasint,omitempty"`
	Hints     []Hint             `cbor:"6,keyasint,omitempty"`
	RelayPass []byte             `cbor:"7,keyasint,omitempty"`
}

// String is the token as it is handed to the joiner.
func (t Token) String() string {
	w := tokenWire{
		Version: TokenVersion, Network: t.Network, Invite: t.Invite.Marshal(), Seed: t.Seed, PSK: t.PSK,
		Hints: t.Hints, RelayPass: t.RelayPass,
	}
	for _, g := range t.Grants {
		w.Grants = append(w.Grants, g.Marshal())
	}
	payload := dcbor.Marshal(&w)
	return TokenPrefix + base58.Encode(append(payload, checksum(payload)...))
}

// Check tells whether the token is within its bounds: ErrTooLarge, else nil. A maker drops hints until it is.
func (t Token) Check() error {
	if len(t.Hints) > MaxHints || len(t.Grants) > maxGrants || len(t.RelayPass) > MaxPass ||
		len(t.String()) > MaxToken {
		return ErrTooLarge
	}
	return nil
}

// InviteID is the id of the invite's statement.
func (t Token) InviteID() identity.Hash {
	return identity.Sum(identity.PurposeStatement, t.Invite.Body)
}

// Terms are what the invite says, nil in a token that was not parsed or made here.
func (t Token) Terms() *InviteTerms {
	_, terms, err := parseInvite(t.Invite, t.Network)
	if err != nil {
		return nil
	}
	return terms
}

// Author is who made the invite.
func (t Token) Author() identity.PeerID {
	st, _, err := parseInvite(t.Invite, t.Network)
	if err != nil {
		return identity.PeerID{}
	}
	return st.Author
}

func (t Token) redacted() string { return fmt.Sprintf("[token of invite %.8s]", t.InviteID()) }

// Format hides the secrets under every verb.
func (t Token) Format(f fmt.State, _ rune) { io.WriteString(f, t.redacted()) }

// LogValue hides the secrets in logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.redacted()) }

// ParseToken reads a token, with white space around it. Its errors are ErrTokenFormat for what never was one,
// ErrTokenChecksum, and ErrTokenVersion. It checks that the invite is signed and that the secret is the invite's own,
// but not whether its author may invite.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	encoded, ok := strings.CutPrefix(s, TokenPrefix)
	if !ok || len(s) > MaxToken || len(encoded) == 0 {
		return Token{}, ErrTokenFormat
	}
	data, err := base58.Decode(encoded)
	if err != nil || len(data) <= checksumLen {
		return Token{}, ErrTokenChecksum
	}
	payload, sum := data[:len(data)-checksumLen], data[len(data)-checksumLen:]
	if !bytes.Equal(checksum(payload), sum) {
		return Token{}, ErrTokenChecksum
	}
	return parseTokenPayload(payload)
}

func parseTokenPayload(payload []byte) (Token, error) {
	var w tokenWire
	if err := decode(payload, &w, 7); errors.Is(err, ErrNewer) {
		return Token{}, ErrTokenVersion
	} else if err != nil {
		var v struct {
			Version uint64 `cbor:"0,keyasint"`
		}
		if dcbor.Unmarshal(payload, &v); v.Version > TokenVersion {
			return Token{}, ErrTokenVersion
		}
		return Token{}, ErrTokenFormat
	}
	if w.Version != TokenVersion {
		return Token{}, ErrTokenVersion
	}
	t := Token{Network: w.Network, Seed: w.Seed, PSK: w.PSK, Hints: w.Hints, RelayPass: w.RelayPass}
	if len(t.Hints) > MaxHints || len(w.Grants) > maxGrants || len(t.RelayPass) > MaxPass {
		return Token{}, ErrTokenFormat
	}
	var err error
	if t.Invite, err = ParseSigned(w.Invite); err != nil {
		return Token{}, ErrTokenFormat
	}
	for _, raw := range w.Grants {
		g, err := ParseSigned(raw)
		if err != nil {
			return Token{}, ErrTokenFormat
		}
		t.Grants = append(t.Grants, g)
	}
	if !t.holds() {
		return Token{}, ErrTokenFormat
	}
	return t, nil
}

// holds checks what the token says of itself.
func (t Token) holds() bool {
	for _, h := range t.Hints {
		if h.Addr == "" || len(h.Addr) > 256 {
			return false
		}
	}
	_, terms, err := parseInvite(t.Invite, t.Network)
	return err == nil && identity.FromSeed(t.Seed).ID() == terms.Key
}

// checksum is that of base58check: the first four bytes of double SHA-256.
func checksum(payload []byte) []byte {
	once := sha256.Sum256(payload)
	twice := sha256.Sum256(once[:])
	return twice[:checksumLen]
}
