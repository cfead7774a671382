package relayserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
)

// ServeConn serves one established stream until it ends, and closes it. The error says why it ended; it is nil when the
// client just left or the context ended.
func (s *Server) ServeConn(ctx context.Context, stream relay.Stream) error {
	defer stream.Close()
	if !s.begin() {
		return ErrClosed
	}
	defer s.serving.Done()
	c := newSession(s, stream)
	stop := context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })
	defer stop()
	if err := s.admit(c, stream); err != nil {
		return fmt.Errorf("relay handshake: %w", err)
	}
	err := c.run()
	if ctx.Err() != nil || isLeft(err) {
		return nil
	}
	return err
}

// admit does the handshake, as one of a bounded number at a time.
func (s *Server) admit(c *session, stream relay.Stream) error {
	seen := remote(stream)
	out, ok := s.half.add(stream.Conn, seen.Addr())
	if !ok {
		return ErrClosed
	}
	if out != nil {
		s.count.halfOpen.Add(1)
		out.Close()
	}
	defer s.half.remove(stream.Conn, seen.Addr())
	if err := stream.SetDeadline(time.Now().Add(relay.HandshakeTime)); err != nil {
		return err
	}
	pass, err := s.greet(c, stream)
	if err != nil {
		return err
	}
	if code, ok := s.enter(c); !ok {
		return s.refuse(stream, code, nil)
	}
	if err := stream.SetDeadline(time.Time{}); err != nil {
		s.leave(c)
		return err
	}
	s.half.remove(stream.Conn, seen.Addr()) // before the client knows: Close ends it in another way from here on
	c.admitted(pass, relay.AppendFrame(nil, relay.TypeWelcome, relay.AppendWelcome(nil, seen)))
	return nil
}

// greet exchanges the hellos and checks who the client is. pass is the one it was admitted with, where one is needed.
func (s *Server) greet(c *session, stream relay.Stream) (pass *relay.Pass, err error) {
	hello := relay.ServerHello{
		Version: relay.Version, Nonces: stream.Exporter == nil && stream.Host != "", KeepAlive: s.keepAlive(),
		MaxFrame: s.cfg.MaxFrame, Server: s.id, STUNPort: s.cfg.STUNPort,
	}
	rand.Read(hello.Nonce[:])
	if _, err := stream.Write(relay.AppendFrame(nil, relay.TypeServerHello, hello.Append(nil))); err != nil {
		return nil, err
	}
	client, err := c.readHello()
	if err != nil {
		return nil, s.refuse(stream, relay.RefusedProtocol, err)
	}
	if client.Version != relay.Version {
		return nil, s.refuse(stream, relay.RefusedVersion, relay.ErrVersion)
	}
	if err := verifyProof(&client, &hello, stream); err != nil {
		return nil, s.refuse(stream, relay.RefusedProof, err)
	}
	c.setNode(client.Node, client.Home)
	pass, err = s.checkPass(&client)
	switch {
	case errors.Is(err, relay.ErrPassExpired):
		return nil, s.refuse(stream, relay.RefusedExpired, err)
	case err != nil:
		return nil, s.refuse(stream, relay.RefusedPass, err)
	}
	return pass, nil
}

// verifyProof checks that the client has its key, and that its stream is this one.
func verifyProof(client *relay.ClientHello, hello *relay.ServerHello, stream relay.Stream) error {
	var zero identity.NetworkID
	switch {
	case client.Kind == relay.ProofExporter && len(stream.Exporter) > 0:
		return identity.Verify(client.Node, identity.PurposeRelayTLS, zero, stream.Exporter, client.Signature[:])
	case client.Kind == relay.ProofNonce && hello.Nonces:
		body := relay.NonceBody(stream.Host, stream.CertHash, hello.Nonce)
		return identity.Verify(client.Node, identity.PurposeRelayNonce, zero, body, client.Signature[:])
	}
	return relay.ErrProof
}

// checkPass is the pass that admits the client; nil without an error: none is needed.
func (s *Server) checkPass(client *relay.ClientHello) (*relay.Pass, error) {
	allowed := *s.allowed.Load()
	if len(allowed) == 0 {
		return nil, nil
	}
	pass, err := relay.ParsePass(client.Pass)
	if err != nil {
		return nil, err
	}
	return pass, pass.Verify(allowed, client.Node, time.Now())
}

// refuse tells the client why, and returns it as an error.
func (s *Server) refuse(stream relay.Stream, code relay.Code, cause error) error {
	switch code {
	case relay.RefusedVersion:
		s.count.refusedVersion.Add(1)
	case relay.RefusedProof:
		s.count.refusedProof.Add(1)
	case relay.RefusedPass, relay.RefusedExpired:
		s.count.refusedPass.Add(1)
	case relay.RefusedFull:
		s.count.refusedFull.Add(1)
		cause = relay.ErrFull
	default:
		s.count.refusedProtocol.Add(1)
	}
	text := ""
	if code == relay.RefusedPass {
		text = cause.Error()
	}
	stream.Write(relay.AppendRefused(nil, code, text)) // as far as it goes
	return cause
}

// remote is the client's address; the zero one where the stream has none.
func remote(conn net.Conn) netip.AddrPort {
	addr, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
}
