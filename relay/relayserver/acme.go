package relayserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/meshnet/meshnet/internal/safefile"
	"github.com/meshnet/meshnet/relay"
)

// letsEncrypt is the directory of the authority that most use.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// ACMEConfig has a certificate issued by an authority (RFC 8555), by the challenge TLS-ALPN-01 (RFC 8737) on the port
// that clients are let in by: the authority has to reach it as port 443 of the domain. Using it is agreeing to the
// authority's terms.
type ACMEConfig struct {
	Domain    string         // empty: not used
	Directory string         // URL of the authority; empty: Let's Encrypt
	Roots     *x509.CertPool // that the authority's own server is known by; nil: those of the system
	Cache     string         // folder that keeps the account, the certificate and their keys; empty: memory
}

const (
	acmeWait    = time.Minute // after an issuance that failed, doubled up to the next
	acmeMaxWait = time.Hour
	acmeTimeout = 5 * time.Minute // for one issuance
	// acmeCheck is how often the time of renewal is looked at: a clock may jump.
	acmeCheck = time.Hour
)

var (
	errNotIssued   = errors.New("the certificate has not been issued yet")
	errNoChallenge = errors.New("no challenge of that name is open")
	errOtherName   = errors.New("asked for under another name")
)

// acmeCertificates gets a certificate and has it renewed. run owns it, but for what is atomic.
type acmeCertificates struct {
	domain    string
	client    *acme.Client
	dir       *safefile.Dir // nil: memory
	log       *slog.Logger
	current   atomic.Pointer[tls.Certificate]
	challenge atomic.Pointer[tls.Certificate] // while the authority checks
}

func openACME(cfg ACMEConfig, log *slog.Logger) (*certificates, error) {
	u, err := relay.ParseURL("https://" + cfg.Domain)
	_, address := netip.ParseAddr(cfg.Domain)
	if err != nil || address == nil || u.HostPort() != strings.ToLower(cfg.Domain)+":443" || !strings.Contains(u.Host, ".") {
		return nil, fmt.Errorf("ACME: %q is not a domain", cfg.Domain)
	}
	a := &acmeCertificates{domain: u.Host, log: log}
	a.client = &acme.Client{DirectoryURL: letsEncrypt, UserAgent: "meshnet"}
	if cfg.Directory != "" {
		a.client.DirectoryURL = cfg.Directory
	}
	if cfg.Roots != nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{RootCAs: cfg.Roots}
		a.client.HTTPClient = &http.Client{Transport: transport}
	}
	if cfg.Cache != "" {
		if a.dir, err = safefile.Open(cfg.Cache); err != nil {
			return nil, fmt.Errorf("ACME: %w", err)
		}
		if err := a.load(); err != nil {
			log.Warn("the certificate that was kept is of no use", "err", err)
		}
	}
	return &certificates{get: a.get, run: a.run, protocols: []string{"http/1.1", acme.ALPNProto}, name: u.Host}, nil
}

// get is the certificate for a client, or for the authority that checks.
func (a *acmeCertificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if slices.Contains(hello.SupportedProtos, acme.ALPNProto) {
		if cert := a.challenge.Load(); cert != nil && strings.EqualFold(hello.ServerName, a.domain) {
			return cert, nil
		}
		return nil, errNoChallenge
	}
	if !strings.EqualFold(hello.ServerName, a.domain) {
		return nil, errOtherName
	}
	if cert := a.current.Load(); cert != nil {
		return cert, nil
	}
	return nil, errNotIssued
}

// run sees to it that there is a certificate, until ctx ends.
func (a *acmeCertificates) run(ctx context.Context) {
	wait := acmeWait
	for {
		next := acmeCheck
		if cert := a.current.Load(); cert == nil || !time.Now().Before(renewal(cert.Leaf)) {
			began := time.Now()
			err := a.issue(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				a.log.Error("no certificate was issued", "domain", a.domain, "err", err, "again", wait)
				next, wait = wait, min(2*wait, acmeMaxWait)
			default:
				a.log.Info("certificate issued", "domain", a.domain, "until", a.current.Load().Leaf.NotAfter, "took", time.Since(began))
				wait = acmeWait
			}
		}
		select {
		case <-time.After(next - time.Duration(rand.Int64N(int64(next/10)))):
		case <-ctx.Done():
			return
		}
	}
}

// renewal is when to ask for the next certificate: when a third of this one's time is left.
func renewal(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}
