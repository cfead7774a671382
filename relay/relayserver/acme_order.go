package relayserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/crypto/acme"
)

// The files of ACMEConfig.Cache.
const (
	accountFile = "account.pem" // the account's key
	issuedFile  = "issued.pem"  // the certificate, those of the authority above it, and its key
)

// issue gets a certificate: account, order, challenge, certificate.
func (a *acmeCertificates) issue(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, acmeTimeout)
	defer cancel()
	if err := a.register(ctx); err != nil {
		return fmt.Errorf("register an account: %w", err)
	}
	order, err := a.client.AuthorizeOrder(ctx, acme.DomainIDs(a.domain))
	if err != nil {
		return fmt.Errorf("order: %w", err)
	}
	for _, url := range order.AuthzURLs {
		if err := a.authorize(ctx, url); err != nil {
			return fmt.Errorf("prove that the domain is ours: %w", err)
		}
	}
	if order, err = a.client.WaitOrder(ctx, order.URI); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	return a.finish(ctx, order)
}

// register makes the account's key and the account where they are missing.
func (a *acmeCertificates) register(ctx context.Context) error {
	if a.client.Key == nil {
		key, err := a.accountKey()
		if err != nil {
			return err
		}
		a.client.Key = key
	}
	_, err := a.client.Register(ctx, &acme.Account{}, acme.AcceptTOS)
	if errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil
	}
	return err
}

// accountKey loads the key, or makes it.
func (a *acmeCertificates) accountKey() (*ecdsa.PrivateKey, error) {
	if a.dir == nil {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	text, err := a.dir.Read(accountFile)
	if err == nil {
		return parseKey(text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if text, err = marshalKey(key); err != nil {
		return nil, err
	}
	return key, a.dir.Write(accountFile, text)
}

// authorize answers the challenge of one authorization.
func (a *acmeCertificates) authorize(ctx context.Context, url string) error {
	authz, err := a.client.GetAuthorization(ctx, url)
	if err != nil || authz.Status == acme.StatusValid {
		return err
	}
	for _, challenge := range authz.Challenges {
		if challenge.Type != "tls-alpn-01" {
			continue
		}
		cert, err := a.client.TLSALPN01ChallengeCert(challenge.Token, a.domain)
		if err != nil {
			return err
		}
		a.challenge.Store(&cert)
		defer a.challenge.Store(nil)
		if _, err := a.client.Accept(ctx, challenge); err != nil {
			return err
		}
		_, err = a.client.WaitAuthorization(ctx, url)
		return err
	}
	return errors.New("the authority does not offer tls-alpn-01")
}

// finish has the certificate of an order made for a new key, and keeps both.
func (a *acmeCertificates) finish(ctx context.Context, order *acme.Order) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{a.domain}}, key)
	if err != nil {
		return err
	}
	chain, _, err := a.client.CreateOrderCert(ctx, order.FinalizeURL, request, true)
	if err != nil {
		return fmt.Errorf("have the certificate made: %w", err)
	}
	text, err := marshalKey(key)
	if err != nil {
		return err
	}
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := a.use(text); err != nil {
		return err
	}
	if a.dir == nil {
		return nil
	}
	if err := a.dir.Write(issuedFile, text); err != nil {
		a.log.Warn("the certificate cannot be kept, another will be issued at the next start", "err", err)
	}
	return nil
}

// load takes the certificate that was kept, if there is one.
func (a *acmeCertificates) load() error {
	text, err := a.dir.Read(issuedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.use(text)
}

// use takes a certificate with its key into use, unless it is for something else or over.
func (a *acmeCertificates) use(text []byte) error {
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return err
	}
	if err := cert.Leaf.VerifyHostname(a.domain); err != nil {
		return err
	}
	if time.Now().After(cert.Leaf.NotAfter) {
		return fmt.Errorf("it expired on %s", cert.Leaf.NotAfter.Format(time.DateOnly))
	}
	a.current.Store(&cert)
	return nil
}

func marshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New(accountFile + " has no key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", accountFile, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New(accountFile + " has a key of another kind")
	}
	return ec, nil
}
