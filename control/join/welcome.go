package join

import (
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

const welcomeHeader = 2 + 32

// Word says why nobody is let in.
type Word string

// The words of a Refusal.
const (
	WordExpired  Word = "expired"
	WordUsed     Word = "used"
	WordRevoked  Word = "revoked"
	WordBusy     Word = "busy"
	WordUnsynced Word = "unsynced"
	WordFull     Word = "full"
)

func (w Word) known() bool {
	switch w {
	case WordExpired, WordUsed, WordRevoked, WordBusy, WordUnsynced, WordFull:
		return true
	}
	return false
}

// answer is the plaintext of a Welcome, or of a Refusal when Word is set.
type answer struct {
	Node      identity.PeerID   `cbor:"0,keyasint"`
	WG        identity.WGKey    `cbor:"1,keyasint"`
	Disco     identity.DiscoKey `cbor:"2,keyasint"`
	Time      uint64            `cbor:"3,keyasint"` // mesh time, unix milliseconds
	Seen      []byte            `cbor:"4,keyasint,omitempty"`
	Word      Word              `cbor:"5,keyasint,omitempty"`
	Signature []byte            `cbor:"6,keyasint,omitempty"` // of a Refusal, over word ‖ hash of the Intro
}

// Welcome is what an Intro got.
type Welcome struct {
	Node  identity.PeerID
	WG    identity.WGKey
	Disco identity.DiscoKey
	Time  time.Time      // mesh time
	Seen  netip.AddrPort // where the Intro came from
	PSK   identity.Secret
	Word  Word // set: refused; nothing else but Node is
}

// keys are the secrets that an Intro and its Welcome share.
type keys struct {
	psk     identity.Secret
	shared  identity.Secret // X25519 of both ephemeral keys
	network identity.NetworkID
	intro   identity.Hash
}

func (k keys) mixed() []byte { return append(append([]byte(nil), k.shared[:]...), k.psk[:]...) }

func (k keys) welcome() identity.Secret {
	return identity.Derive(k.mixed(), k.network, "meshnet/welcome/v1", k.intro[:])
}

// session is the WireGuard PSK of the provisional peer.
func (k keys) session(welcome []byte) identity.Secret {
	hash := identity.Sum("meshnet/welcome-hash/v1", welcome)
	return identity.Derive(k.mixed(), k.network, "meshnet/join-psk/v1", k.intro[:], hash[:])
}

func (k keys) seal(e [32]byte, a *answer) []byte {
	pkt := append([]byte{TypeWelcome, Version}, e[:]...)
	return aead(k.welcome()).Seal(pkt, zeroNonce[:], dcbor.Marshal(a), pkt[:welcomeHeader])
}

func parseWelcome(pkt []byte) (e [32]byte, err error) {
	if len(pkt) < welcomeHeader || len(pkt) > IntroSize || pkt[0] != TypeWelcome {
		return e, ErrMalformed
	}
	if pkt[1] != Version {
		return e, ErrVersion
	}
	return [32]byte(pkt[2:welcomeHeader]), nil
}

func (k keys) open(pkt []byte) (*answer, error) {
	plain, err := aead(k.welcome()).Open(nil, zeroNonce[:], pkt[welcomeHeader:], pkt[:welcomeHeader])
	if err != nil {
		return nil, ErrSeal
	}
	return parseAnswer(plain)
}

func parseAnswer(plain []byte) (*answer, error) {
	a := new(answer)
	if err := dcbor.Unmarshal(plain, a); err != nil {
		return nil, ErrMalformed
	}
	if a.Time >= 1<<53 || a.Word != "" && !a.Word.known() || a.Word == "" && a.WG == (identity.WGKey{}) {
		return nil, ErrMalformed
	}
	return a, nil
}

func refusalBody(w Word, intro identity.Hash) []byte { return append([]byte(w), intro[:]...) }
