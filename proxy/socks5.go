package proxy

import (
	"context"
	"errors"
	"net"
	"time"
)

// SOCKS5 is a SOCKS proxy of version 5: CONNECT without authentication. BIND and UDP ASSOCIATE are refused as the
// protocol has it. Immutable; one may serve several listeners.
type SOCKS5 struct {
	config Config
}

// NewSOCKS5 returns a proxy; it starts nothing.
func NewSOCKS5(c Config) *SOCKS5 { return &SOCKS5{config: c} }

// Serve takes clients from l, which it closes, until ctx is done; then it closes their connections and returns nil
// after all of them ended. An error of l ends it too, and is returned.
func (s *SOCKS5) Serve(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, s.handle)
}

func (s *SOCKS5) handle(ctx context.Context, client net.Conn) {
	log := s.config.logger()
	_ = client.SetDeadline(time.Now().Add(handshakeTimeout)) // a connection without deadlines ends by other means
	request, err := s.handshake(client)
	if err != nil {
		log.Debug("socks handshake failed", "endpoint", client.RemoteAddr(), "err", err)
		return
	}
	target, err := s.config.dial(ctx, request.hostport())
	_ = client.SetDeadline(time.Now().Add(handshakeTimeout))
	if err != nil {
		log.Debug("socks connect failed", "endpoint", request.hostport(), "err", err)
		_ = reply(client, replyFor(err), nil)
		return
	}
	if err := reply(client, replyDone, target.LocalAddr()); err != nil {
		target.Close()
		return
	}
	_ = client.SetDeadline(time.Time{})
	Pipe(client, target)
}

// handshake reads what the client wants; it has answered every error that has an answer.
func (s *SOCKS5) handshake(client net.Conn) (message, error) {
	none, err := readMethods(client)
	if err != nil {
		return message{}, err
	}
	if !none {
		_, _ = client.Write([]byte{socksVersion, methodUnacceptable})
		return message{}, errors.New("socks: client wants to authenticate")
	}
	if _, err := client.Write([]byte{socksVersion, methodNone}); err != nil {
		return message{}, err
	}
	request, err := readMessage(client)
	switch {
	case errors.Is(err, errKind):
		_ = reply(client, replyBadKind, nil)
	case errors.Is(err, errName) || errors.Is(err, errField):
		_ = reply(client, replyFailed, nil)
	case err == nil && request.code != commandConnect:
		_ = reply(client, replyBadCommand, nil)
		err = errors.New("socks: command is not supported")
	}
	return request, err
}

func reply(client net.Conn, code byte, bound net.Addr) error {
	_, err := client.Write(replyWith(code, bound).append(nil))
	return err
}

func replyFor(err error) byte {
	switch outcomeOf(err) {
	case denied:
		return replyDenied
	case refused:
		return replyRefused
	case netUnreachable:
		return replyNetUnreachable
	case hostUnreachable:
		return replyHostUnreachable
	}
	return replyFailed
}
