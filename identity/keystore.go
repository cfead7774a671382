package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/meshnet/meshnet/internal/safefile"
)

// Errors of ParseKey.
var (
	ErrKeyFormat = errors.New("neither 32 raw bytes nor a PEM private key")
	ErrKeyKind   = errors.New("not an Ed25519 private key")
)

const pemPrivateKey = "PRIVATE KEY"

// MarshalPEM is the seed as a PKCS#8 private key in PEM (RFC 8410), as `openssl genpkey -algorithm ed25519` writes.
func (i *Identity) MarshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(i.node)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// MarshalRaw is the 32 bytes of the seed.
func (i *Identity) MarshalRaw() []byte { return i.seed[:] }

// MarshalPublicPEM is the public node key as SubjectPublicKeyInfo in PEM (RFC 8410).
func (i *Identity) MarshalPublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(i.node.Public())
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParseKey reads a seed, told by its form: exactly 32 raw bytes, or one PKCS#8 PEM block. Anything else is
// ErrKeyFormat or ErrKeyKind.
func ParseKey(data []byte) (*Identity, error) {
	if len(data) == len(Secret{}) {
		return FromSeed(Secret(data)), nil
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemPrivateKey {
		return nil, ErrKeyFormat
	}
	if another, _ := pem.Decode(rest); another != nil {
		return nil, ErrKeyFormat // which of them is meant?
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, ErrKeyFormat
	}
	node, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, ErrKeyKind
	}
	return FromSeed(Secret(node.Seed())), nil
}

// KeyFile is the name of the key within a state folder.
const KeyFile = "identity.pem"

// Load reads the key of a state folder. A folder without one gives fs.ErrNotExist.
func Load(dir *safefile.Dir) (*Identity, error) {
	data, err := dir.Read(KeyFile)
	if err != nil {
		return nil, err
	}
	id, err := ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Path(KeyFile), err)
	}
	return id, nil
}

// Save replaces the key of a state folder, whole or not at all, readable by its owner only.
func (i *Identity) Save(dir *safefile.Dir) error {
	data, err := i.MarshalPEM()
	if err != nil {
		return err
	}
	return dir.Write(KeyFile, data)
}
