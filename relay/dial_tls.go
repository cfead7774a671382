package relay

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// What may be wrong with the certificate of a server. Errors of Dial wrap one of them.
var (
	ErrPin       = errors.New("the certificate is not the pinned one")
	ErrName      = errors.New("the certificate is for another name")
	ErrExpired   = errors.New("the certificate has expired or is not valid yet")
	ErrUnknownCA = errors.New("the certificate is from no known authority")
)

// tlsConfig is for a session with u.
func (cfg DialConfig) tlsConfig(u URL) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: u.Host,
		NextProtos: []string{"http/1.1"},
		// Whole records from the start: what is written is many frames at once.
		DynamicRecordSizingDisabled: true,
		InsecureSkipVerify:          true, // VerifyConnection does it
		VerifyConnection:            func(state tls.ConnectionState) error { return verify(state, u, cfg.Roots) },
	}
}

// verify checks that a server is u. With a pin nothing else counts: neither names nor the clock, as a host that has
// just started may be far off.
func verify(state tls.ConnectionState, u URL, roots *x509.CertPool) error {
	leaf := state.PeerCertificates[0]
	if u.Pinned() {
		if sum := sha256.Sum256(leaf.Raw); sum != u.Pin {
			return fmt.Errorf("%w: it has sha256=%x", ErrPin, sum)
		}
		return nil
	}
	opts := x509.VerifyOptions{DNSName: u.Host, Roots: roots, Intermediates: x509.NewCertPool()}
	for _, cert := range state.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(opts)
	return sortVerifyError(err)
}

// sortVerifyError adds the one of our errors that err amounts to.
func sortVerifyError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fmt.Errorf("%w: %w", ErrExpired, err)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w: %w", ErrUnknownCA, err)
	}
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return fmt.Errorf("%w: %w", ErrUnknownCA, err)
	}
	return err
}
