package relayserver_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
	"github.com/meshnet/meshnet/relay/relaytest"
)

// TestBehindProxy has a proxy end TLS before the server: only clients get in that dialled the name which the server has,
// and saw the proxy's certificate.
func TestBehindProxy(t *testing.T) {
	known := relay.Stream{Host: "relay.example:443", CertHash: [32]byte{1}}
	server := relayserver.New(relayserver.Config{})
	t.Cleanup(func() { server.Close() })
	for _, c := range []struct {
		name   string
		served relay.Stream // but for its Conn
		client relay.Stream
		want   error
	}{
		{"known", known, known, nil},
		{"another name", known, relay.Stream{Host: "evil.example:443", CertHash: [32]byte{1}}, relay.ErrProof},
		{"another certificate", known, relay.Stream{Host: known.Host, CertHash: [32]byte{2}}, relay.ErrProof},
		{"pinned", known, relay.Stream{Host: known.Host, CertHash: [32]byte{1}, Pinned: true}, relay.ErrProof},
		{"exporter of another session", known, relay.Stream{Host: known.Host, Exporter: make([]byte, 32), Pinned: true}, relay.ErrProof},
		{"unknown proxy", relay.Stream{}, known, relay.ErrProof},
	} {
		r := relaytest.Relay{Server: server, Dial: func(context.Context) (relay.Stream, error) {
			near, far := net.Pipe()
			served, client := c.served, c.client
			served.Conn, client.Conn = far, near
			go server.ServeConn(context.Background(), served)
			return client, nil
		}}
		n, err := relaytest.TryConnect(t, r)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil {
			n.Close()
		}
	}
}

// TestNonceIsFresh refuses a proof that was made for another stream.
func TestNonceIsFresh(t *testing.T) {
	server := relayserver.New(relayserver.Config{})
	t.Cleanup(func() { server.Close() })
	known := relay.Stream{Host: "relay.example:443", CertHash: [32]byte{1}}
	r := relaytest.Relay{Server: server, Dial: func(context.Context) (relay.Stream, error) {
		near, far := net.Pipe()
		served, client := known, known
		served.Conn, client.Conn = far, near
		go server.ServeConn(context.Background(), served)
		return client, nil
	}}
	key := identity.New()
	first, second := relaytest.DialRaw(t, r), relaytest.DialRaw(t, r)
	hello := relay.ClientHello{Version: relay.Version, Node: key.ID(), Kind: relay.ProofNonce}
	body := relay.NonceBody(known.Host, known.CertHash, first.Hello.Nonce)
	copy(hello.Signature[:], key.Sign(identity.PurposeRelayNonce, identity.NetworkID{}, body))
	for raw, want := range map[*relaytest.Raw]relay.Type{first: relay.TypeWelcome, second: relay.TypeRefused} {
		if !raw.Hello.Nonces {
			t.Fatal("the server takes no nonce proofs")
		}
		raw.Send(t, relay.TypeClientHello, hello.Append(nil))
		if f := raw.Next(t); f.Type != want {
			t.Errorf("answer of type %#x, want %#x", f.Type, want)
		}
	}
}
