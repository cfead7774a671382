package dht

import (
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/anacrolix/dht/v2/bep44"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/meshnet/meshnet/identity"
)

const (
	// slotLength is how long a set of locations is in use. Nodes of the DHT keep an item for about as long (BEP 44).
	slotLength = 2 * time.Hour
	// locationCount is how many locations one secret has in a slot.
	locationCount = 8
	saltSize      = 16
)

// slot numbers the spans of slotLength since 1970.
type slot int64

func slotAt(now time.Time) slot {
	seconds := now.Unix()
	length := int64(slotLength / time.Second)
	if seconds < 0 {
		seconds -= length - 1
	}
	return slot(seconds / length)
}

func (s slot) begin() time.Time { return time.Unix(int64(s)*int64(slotLength/time.Second), 0) }

// location is a place in the DHT that only holders of a secret can find, write and read. Immutable.
type location struct {
	key    ed25519.PrivateKey
	public [ed25519.PublicKeySize]byte
	salt   []byte
	target bep44.Target
	seal   cipher.AEAD
}

// locationOf derives location index, 0 to 7, of a slot.
func locationOf(secret identity.Secret, s slot, index int) *location {
	at := binary.BigEndian.AppendUint64(nil, uint64(s))
	where := []byte{byte(index)}
	derive := func(purpose string) identity.Secret {
		return identity.Derive(secret[:], identity.NetworkID{}, purpose, at, where)
	}
	seed, salt, sealing := derive("meshnet/dht-key/v1"), derive("meshnet/dht-salt/v1"), derive("meshnet/dht-seal/v1")
	l := &location{key: ed25519.NewKeyFromSeed(seed[:]), salt: salt[:saltSize]}
	copy(l.public[:], l.key[ed25519.SeedSize:])
	l.target = bep44.MakeMutableTarget(l.public, l.salt)
	aead, err := chacha20poly1305.NewX(sealing[:])
	if err != nil {
		panic("dht: " + err.Error()) // only another key length fails
	}
	l.seal = aead
	return l
}

// indexOf is where a member writes in a slot.
func indexOf(id identity.PeerID, s slot) int {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(id[:], uint64(s)))
	return int(sum[0]) % locationCount
}
