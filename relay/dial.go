package relay

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// The HTTP carrier.
const (
	// Path is what a client asks a relay server for.
	Path = "/meshnet-relay"
	// Protocol is what the connection is upgraded to, and the subprotocol inside WebSocket.
	Protocol = "meshnet-relay"
	// ExporterLabel names what both sides export from the TLS session (RFC 8446 §7.5), with an empty context. The client
	// signs it, which binds its proof to that session.
	ExporterLabel = "EXPORTER-meshnet-relay"
	// ExporterLen is how many bytes they export.
	ExporterLen = 32
)

const (
	connectTimeout = 10 * time.Second // all of Dial
	upgradeTimeout = 4 * time.Second  // for the answer to the upgrade, so that there is time for a second try
)

// DialConfig says how relay servers are reached. The zero value works.
type DialConfig struct {
	// Roots are the authorities whose certificates are good for URLs without a pin, and for https proxies. nil: those
	// of the system.
	Roots *x509.CertPool
	// Proxy returns the HTTP proxy to go through to a URL, or nil for none. nil: what HTTPS_PROXY and NO_PROXY say.
	Proxy func(*url.URL) (*url.URL, error)
	// Control is called on every socket before it connects, as net.Dialer.ControlContext is. nil: nothing is.
	Control func(ctx context.Context, network, address string, conn syscall.RawConn) error
}

// Dial connects to a relay server and returns the stream in which frames pass, within 10 s. All addresses of its name
// are tried (RFC 8305). The connection is upgraded by HTTP; where something between refuses that, it is made anew with
// WebSocket. TLS is 1.3 or none.
//
// A server that does not prove to be the right one is ErrPin, ErrName, ErrExpired or ErrUnknownCA.
func Dial(ctx context.Context, u URL, cfg DialConfig) (Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	s, err := cfg.dialUpgrade(ctx, u)
	if refused, ok := errors.AsType[*carrierError](err); ok && ctx.Err() == nil {
		if s, err = cfg.dialWebSocket(ctx, u); err != nil {
			err = fmt.Errorf("%w; by WebSocket: %w", refused, err)
		}
	}
	if err != nil {
		return Stream{}, fmt.Errorf("connect to relay %s: %w", u.base(), err)
	}
	return s, nil
}

// dialUpgrade makes a TLS session and upgrades it.
func (cfg DialConfig) dialUpgrade(ctx context.Context, u URL) (Stream, error) {
	conn, err := cfg.dialTLS(ctx, u)
	if err != nil {
		return Stream{}, err
	}
	rest, err := upgrade(ctx, conn, u)
	if err != nil {
		conn.Close()
		return Stream{}, err
	}
	return newStream(conn, u, &afterRest{conn, rest})
}

// newStream wraps carrier, which lies on the session of conn. It closes both when it fails.
func newStream(conn *tls.Conn, u URL, carrier net.Conn) (Stream, error) {
	state := conn.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(ExporterLabel, nil, ExporterLen)
	if err != nil {
		carrier.Close()
		return Stream{}, fmt.Errorf("export from the TLS session: %w", err)
	}
	return Stream{
		Conn:     carrier,
		Exporter: exporter,
		Host:     u.HostPort(),
		CertHash: sha256.Sum256(state.PeerCertificates[0].Raw),
		Pinned:   u.Pinned(),
	}, nil
}

// dialTLS connects to the server, through a proxy where there is one, and has it prove that it is the one.
func (cfg DialConfig) dialTLS(ctx context.Context, u URL) (*tls.Conn, error) {
	proxy, err := cfg.proxy(u)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	if proxy != nil {
		conn, err = cfg.dialProxy(ctx, proxy, u)
	} else {
		conn, err = cfg.dialTCP(ctx, u.Host, u.Port)
	}
	if err != nil {
		return nil, err
	}
	return handshake(ctx, conn, cfg.tlsConfig(u))
}

// proxy is the proxy on the way to u, or nil.
func (cfg DialConfig) proxy(u URL) (*url.URL, error) {
	var proxy *url.URL
	var err error
	if cfg.Proxy != nil {
		proxy, err = cfg.Proxy(u.url())
	} else {
		proxy, err = http.ProxyFromEnvironment(&http.Request{URL: u.url()})
	}
	if err != nil {
		return nil, fmt.Errorf("find the proxy to use: %w", err)
	}
	return proxy, nil
}

func (cfg DialConfig) dialTCP(ctx context.Context, host string, port uint16) (net.Conn, error) {
	dialer := net.Dialer{ControlContext: cfg.Control, KeepAlive: -1} // the protocol has its own
	r := racer{
		lookup: lookupIn(net.DefaultResolver),
		dial: func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", addr.String())
		},
	}
	return r.connect(ctx, host, port)
}

// handshake makes a TLS session on conn, which is closed when that fails.
func handshake(ctx context.Context, conn net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	session := tls.Client(conn, cfg)
	if err := session.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return session, nil
}

// during runs f, which talks over conn, until ctx ends.
func during(ctx context.Context, conn net.Conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		return context.Cause(ctx) // the deadline is or will be set: whatever f did, conn is of no use
	}
	return err
}

// afterRest is a connection of which the first bytes were read already.
type afterRest struct {
	net.Conn
	rest []byte
}

// Read hands over those bytes first.
func (c *afterRest) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil
	}
	return n, nil
}

// NetConn is the connection under it.
func (c *afterRest) NetConn() net.Conn { return c.Conn }
