package relayserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// tlsWorld is a Server behind TLS on loopback.
type tlsWorld struct {
	*relayserver.Server
	ln   net.Listener
	cert tls.Certificate
	wg   sync.WaitGroup
}

func newTLSWorld(t testing.TB, cfg relayserver.Config) *tlsWorld {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &tlsWorld{Server: relayserver.New(cfg), ln: ln, cert: selfSigned(t)}
	w.wg.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

func (w *tlsWorld) close() {
	w.ln.Close()
	w.Close()
	w.wg.Wait()
}

func (w *tlsWorld) accept() {
	cfg := &tls.Config{
		Certificates: []tls.Certificate{w.cert}, MinVersion: tls.VersionTLS13,
		DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true,
	}
	for {
		conn, err := w.ln.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() {
			session := tls.Server(conn, cfg)
			if session.Handshake() != nil {
				conn.Close()
				return
			}
			w.ServeConn(context.Background(), relay.Stream{Conn: session, Exporter: export(session)})
		})
	}
}

func (w *tlsWorld) Dial(ctx context.Context) (relay.Stream, error) {
	return dialTLS(ctx, w.ln.Addr().String())
}

func dialTLS(ctx context.Context, addr string) (relay.Stream, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return relay.Stream{}, err
	}
	session := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
	})
	if err := session.HandshakeContext(ctx); err != nil {
		conn.Close()
		return relay.Stream{}, err
	}
	hash := sha256.Sum256(session.ConnectionState().PeerCertificates[0].Raw)
	return relay.Stream{Conn: session, Exporter: export(session), Host: addr, CertHash: hash}, nil
}

func export(session *tls.Conn) []byte {
	state := session.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(relay.ExporterLabel, nil, relay.ExporterLen)
	if err != nil {
		panic(err)
	}
	return exporter
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
