package identity

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
)

// Secret is 32 secret bytes: a seed, a network key, a pre-shared key. It never prints itself.
type Secret [32]byte

// NewSecret draws a secret from the system's random source, which never fails (crypto/rand).
func NewSecret() Secret {
	var s Secret
	rand.Read(s[:])
	return s
}

// IsZero reports whether s is unset.
func (s Secret) IsZero() bool { return s == Secret{} }

// String hides the bytes.
func (Secret) String() string { return "[secret]" }

// Format hides the bytes under every verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// MarshalJSON hides the bytes in JSON, which logs are written in too.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// LogValue hides the bytes in logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// Commit is what genesis and rekeying publish of a network key; its first four bytes name the key. It does not depend
// on the network, whose id is the hash of a genesis that holds it.
func Commit(k Secret) Secret { return Derive(k[:], NetworkID{}, "meshnet/commit/v1") }

// Derive is HKDF-SHA256 (RFC 5869) of secret with the network's id as salt and info = purpose ‖ 0x00 ‖ fields.
// The fields of one purpose always have the same lengths, so that no two calls share an info by chance.
func Derive(secret []byte, network NetworkID, purpose string, fields ...[]byte) Secret {
	info := append([]byte(purpose), 0)
	for _, f := range fields {
		info = append(info, f...)
	}
	out, err := hkdf.Key(sha256.New, secret, network[:], string(info), len(Secret{}))
	if err != nil {
		panic("identity: hkdf: " + err.Error()) // only a key longer than 255 hashes fails
	}
	return Secret(out)
}
