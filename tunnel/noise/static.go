package noise

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"

	"github.com/meshnet/meshnet/identity"
)

// Static is a node's long-term key with all that derives from it once. It does not change until Wipe, so any number
// of goroutines may use it.
type Static struct {
	unprintable
	private scalar
	public  [32]byte
	begin   symmetric // of handshakes to us
	mac1Key [hashSize]byte
}

// NewStatic prepares a private key, clamped or not. The zero key, which is none, is identity.ErrBadKey.
func NewStatic(private identity.Secret) (*Static, error) {
	if private.IsZero() {
		return nil, identity.ErrBadKey
	}
	s := &Static{private: scalarOf(private)}
	s.private.public(&s.public)
	s.begin = begin(&s.public)
	s.mac1Key = hashOf(labelMAC1, &s.public)
	return s, nil
}

// Public is the public half.
func (s *Static) Public() identity.WGKey { return s.public }

// Wipe forgets the key: no handshake of it can be begun, opened or finished after that. Nobody may be using it.
func (s *Static) Wipe() {
	s.private.wipe()
	wipe(s.public[:])
	s.begin.wipe()
	wipe(s.mac1Key[:])
}

// CheckMAC1 reports whether msg is an initiation or a response whose sender knows our public key. Open, Finish and
// Reply do it themselves.
func (s *Static) CheckMAC1(msg []byte) bool {
	if !hasMACs(msg) {
		return false
	}
	at := len(msg) - macsSize
	var want [macSize]byte
	mac(&want, s.mac1Key[:], msg[:at])
	return subtle.ConstantTimeCompare(want[:], msg[at:at+macSize]) == 1
}

// Remote is a peer's long-term key as one Static sees it, with all that derives from both once. It does not change
// until Wipe, so any number of goroutines may use it. It is good for the Static that made it only: with another one
// no handshake succeeds.
type Remote struct {
	unprintable
	public    [32]byte
	shared    [32]byte  // static-static
	begin     symmetric // of handshakes to it
	mac1Key   [hashSize]byte
	cookieKey [hashSize]byte
}

// Remote prepares a peer's key. A point of small order is identity.ErrBadKey.
func (s *Static) Remote(key identity.WGKey) (*Remote, error) {
	r := &Remote{public: key}
	if !s.private.shared(&r.shared, &r.public) {
		return nil, identity.ErrBadKey
	}
	r.begin = begin(&r.public)
	r.mac1Key = hashOf(labelMAC1, &r.public)
	r.cookieKey = hashOf(labelCookie, &r.public)
	return r, nil
}

// Key is the peer's public key.
func (r *Remote) Key() identity.WGKey { return r.public }

// Wipe forgets all of it: no handshake with it can be begun, opened or answered after that. Nobody may be using it.
func (r *Remote) Wipe() {
	wipe(r.public[:])
	wipe(r.shared[:])
	r.begin.wipe()
	wipe(r.mac1Key[:])
	wipe(r.cookieKey[:])
}

// putMACs writes the macs of a message to r: the second one only with a cookie, zero otherwise.
func (r *Remote) putMACs(msg []byte, cookie *Cookie) {
	at := len(msg) - macsSize
	mac((*[macSize]byte)(msg[at:]), r.mac1Key[:], msg[:at])
	at += macSize
	if cookie == nil {
		clear(msg[at:])
		return
	}
	mac((*[macSize]byte)(msg[at:]), cookie[:], msg[:at])
}

// Keys are those of one session's data, for ChaCha20-Poly1305 under Nonce.
type Keys struct{ Send, Receive identity.Secret }

// Wipe forgets them.
func (k *Keys) Wipe() {
	wipe(k.Send[:])
	wipe(k.Receive[:])
}

// unprintable hides what embeds it under every verb and in logs.
type unprintable struct{}

// Format hides the fields.
func (unprintable) Format(f fmt.State, _ rune) { io.WriteString(f, "[secret]") }

// LogValue hides the fields.
func (unprintable) LogValue() slog.Value { return slog.StringValue("[secret]") }
