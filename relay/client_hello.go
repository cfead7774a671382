package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// HandshakeTime is how long a handshake may take, on both sides.
const HandshakeTime = 10 * time.Second

// Errors of NewClient: why a relay refuses this node, or this node the relay.
var (
	ErrVersion = errors.New("relay speaks no version of the protocol that this node does")
	// ErrProof: the relay's TLS session is not this node's: a proxy between them ends TLS.
	ErrProof   = errors.New("a proxy ends TLS before the relay")
	ErrPass    = errors.New("relay wants a pass of a network it serves")
	ErrFull    = errors.New("relay is full")
	ErrRefused = errors.New("relay refuses")
)

var refusals = map[Code]error{
	RefusedVersion: ErrVersion, RefusedProof: ErrProof, RefusedPass: ErrPass,
	RefusedExpired: ErrPassExpired, RefusedFull: ErrFull,
}

// NonceBody is what a nonce proof signs: length 2 of host:port, host:port, SHA-256 of the certificate, nonce.
func NonceBody(host string, certHash, nonce [32]byte) []byte {
	b := make([]byte, 0, 2+len(host)+64)
	b = binary.BigEndian.AppendUint16(b, uint16(len(host)))
	b = append(b, host...)
	b = append(b, certHash[:]...)
	return append(b, nonce[:]...)
}

// shakeHands does the whole beginning and sets hello and seen.
func (c *Client) shakeHands(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.stream.Close() })
	defer stop()
	err := c.introduce()
	if !stop() { // the stream is closed, or about to be
		return fmt.Errorf("relay handshake: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("relay handshake: %w", err)
	}
	c.reader.SetMax(c.hello.MaxFrame)
	c.heard.Store(int64(time.Since(c.began)))
	return nil
}

func (c *Client) introduce() error {
	p, err := c.expect(TypeServerHello)
	if err != nil {
		return err
	}
	if c.hello, err = ParseServerHello(p); err != nil {
		return err
	}
	if c.hello.Version != Version {
		return ErrVersion
	}
	mine := ClientHello{Version: Version, Node: c.cfg.Identity.ID(), Home: c.cfg.Home}
	if c.cfg.Pass != nil {
		mine.Pass = c.cfg.Pass()
	}
	if err := c.prove(&mine); err != nil {
		return err
	}
	if _, err := c.stream.Write(AppendFrame(nil, TypeClientHello, mine.Append(nil))); err != nil {
		return err
	}
	p, err = c.expect(TypeWelcome)
	if err != nil {
		return err
	}
	c.seen, err = ParseWelcome(p)
	return err
}

// prove signs what binds this node to the stream.
func (c *Client) prove(mine *ClientHello) error {
	purpose, body := identity.PurposeRelayTLS, c.stream.Exporter
	switch {
	case c.hello.Nonces && !c.stream.Pinned:
		mine.Kind = ProofNonce
		purpose = identity.PurposeRelayNonce
		body = NonceBody(c.stream.Host, c.stream.CertHash, c.hello.Nonce)
	case len(body) == 0:
		return ErrProof
	}
	mine.Signature = [signatureLen]byte(c.cfg.Identity.Sign(purpose, identity.NetworkID{}, body))
	return nil
}

// expect reads the next frame of a known type, which has to be t or Refused.
func (c *Client) expect(t Type) ([]byte, error) {
	for {
		f, ok := c.reader.Next()
		if !ok {
			if _, err := c.reader.Fill(); err != nil {
				return nil, err
			}
			continue
		}
		switch f.Type {
		case t:
			return f.Payload(), nil
		case TypeRefused:
			return nil, refusal(f.Payload())
		case TypeServerHello, TypeClientHello, TypeWelcome:
			return nil, ErrMalformed
		}
		c.count.skipped.Add(1)
	}
}

// refusal is the error of a Refused frame.
func refusal(p []byte) error {
	code, text, err := ParseRefused(p)
	if err != nil {
		return err
	}
	sentinel, known := refusals[code]
	if !known {
		sentinel = ErrRefused
	}
	if text == "" {
		return sentinel
	}
	return fmt.Errorf("%w (%s)", sentinel, text)
}
