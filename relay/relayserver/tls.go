package relayserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"path/filepath"
	"strings"
	"time"

	"github.com/meshnet/meshnet/internal/safefile"
)

// certificates is where the certificate of a Front comes from. Immutable.
type certificates struct {
	get       func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	run       func(context.Context) // looks after the certificate until its context ends
	protocols []string              // ALPN
	name      string                // it is good for; empty: none that could be dialled
	pinned    bool                  // it signs itself: clients know it by hash
	hash      [sha256.Size]byte     // of its DER, where pinned
}

func openCertificates(cfg FrontConfig, log *slog.Logger) (*certificates, error) {
	switch {
	case cfg.CertFile != "":
		return openFiles(cfg.CertFile, cfg.KeyFile, log)
	case cfg.ACME.Domain != "":
		return openACME(cfg.ACME, log)
	case cfg.SelfSigned != "":
		cert, err := keepSelfSigned(cfg.SelfSigned)
		if err != nil {
			return nil, fmt.Errorf("self-signed certificate: %w", err)
		}
		return fixed(cert), nil
	}
	cert, _, err := newSelfSigned()
	if err != nil {
		return nil, fmt.Errorf("self-signed certificate: %w", err)
	}
	return fixed(cert), nil
}

// fixed is one certificate for ever.
func fixed(cert *tls.Certificate) *certificates {
	c := describe(cert)
	c.get = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
	c.run = func(context.Context) {}
	return c
}

// describe tells what clients have to know of a certificate.
func describe(cert *tls.Certificate) *certificates {
	c := &certificates{protocols: []string{"http/1.1"}, hash: sha256.Sum256(cert.Leaf.Raw)}
	c.pinned = bytes.Equal(cert.Leaf.RawSubject, cert.Leaf.RawIssuer) && cert.Leaf.CheckSignatureFrom(cert.Leaf) == nil
	for _, name := range cert.Leaf.DNSNames {
		if !strings.HasPrefix(name, "*.") {
			c.name = name
			break
		}
	}
	if c.name == "" && len(cert.Leaf.IPAddresses) > 0 {
		c.name = cert.Leaf.IPAddresses[0].String()
	}
	return c
}

// newSelfSigned makes a certificate that clients know by its hash, and the PEM of it and its key. It has no name, and no
// end (RFC 5280 §4.1.2.5), so that no clock matters.
func newSelfSigned() (*tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	var serial [16]byte
	rand.Read(serial[:])
	serial[0] &= 0x7f // positive
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial[:]),
		Subject:               pkix.Name{CommonName: "meshnet relay"},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true, // of itself alone
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	cert, err := tls.X509KeyPair(text, text)
	return &cert, text, err
}

// keepSelfSigned loads the certificate and its key from a file, which is made where it is missing. A file that makes no
// sense is an error: a new certificate would be another URL.
func keepSelfSigned(path string) (*tls.Certificate, error) {
	folder, name := filepath.Split(path)
	if folder == "" {
		folder = "."
	}
	dir, err := safefile.Open(folder)
	if err != nil {
		return nil, err
	}
	text, err := dir.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		cert, text, err := newSelfSigned()
		if err != nil {
			return nil, err
		}
		return cert, dir.Write(name, text)
	}
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &cert, nil
}
