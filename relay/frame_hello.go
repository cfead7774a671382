package relay

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// Lengths of the payloads of the beginning, in bytes.
const (
	serverHelloLen = 1 + 1 + 2 + 4 + 16 + 32 + 2
	clientHelloLen = 1 + identity32 + 1 + 1 + signatureLen + 2
	welcomeLen     = 1 + 16 + 2
	identity32     = 32
	signatureLen   = 64
	// MaxHello is the greatest payload before Welcome.
	MaxHello = 1024
)

// Bits of the flags.
const (
	flagNonce = 1 // ServerHello: nonce proofs are taken
	flagHome  = 1 // ClientHello: this relay is the client's home
)

// ServerID is drawn anew at every start of a server: two connections with one id lead to the same server.
type ServerID [16]byte

// ServerHello is the first frame of a connection.
type ServerHello struct {
	Version   uint8
	Nonces    bool          // nonce proofs are taken
	KeepAlive time.Duration // whole seconds: how often to say something
	MaxFrame  int           // greatest payload
	Server    ServerID
	Nonce     [32]byte
	STUNPort  uint16 // 0: none
}

// Append appends the frame's payload.
func (h *ServerHello) Append(b []byte) []byte {
	b = append(b, h.Version, bit(h.Nonces, flagNonce))
	b = binary.BigEndian.AppendUint16(b, uint16(h.KeepAlive/time.Second))
	b = binary.BigEndian.AppendUint32(b, uint32(h.MaxFrame))
	b = append(b, h.Server[:]...)
	b = append(b, h.Nonce[:]...)
	return binary.BigEndian.AppendUint16(b, h.STUNPort)
}

// ParseServerHello reads a payload. More bytes than known are ignored, as are unknown flags. Limits out of range are
// ErrMalformed.
func ParseServerHello(p []byte) (ServerHello, error) {
	if len(p) < serverHelloLen {
		return ServerHello{}, ErrMalformed
	}
	h := ServerHello{
		Version:   p[0],
		Nonces:    p[1]&flagNonce != 0,
		KeepAlive: time.Duration(binary.BigEndian.Uint16(p[2:])) * time.Second,
		Server:    ServerID(p[8:24]),
		Nonce:     [32]byte(p[24:56]),
		STUNPort:  binary.BigEndian.Uint16(p[56:]),
	}
	maxFrame := binary.BigEndian.Uint32(p[4:])
	if maxFrame < MinMaxFrame || maxFrame > MaxMaxFrame || h.KeepAlive == 0 {
		return ServerHello{}, ErrMalformed
	}
	h.MaxFrame = int(maxFrame)
	return h, nil
}

// ProofKind is what the signature of a ClientHello covers.
type ProofKind uint8

// The kinds of proofs.
const (
	ProofExporter ProofKind = 0 // the TLS exporter: nobody stands between
	ProofNonce    ProofKind = 1 // host:port, certificate and the server's nonce: a known proxy ends TLS
)

// ClientHello answers ServerHello.
type ClientHello struct {
	Version   uint8
	Node      identity.PeerID
	Kind      ProofKind
	Home      bool
	Signature [signatureLen]byte
	Pass      []byte // empty: none. Parsed: borrowed from the payload.
}

// Append appends the frame's payload. Passes above MaxHello are the caller's mistake.
func (h *ClientHello) Append(b []byte) []byte {
	b = append(b, h.Version)
	b = append(b, h.Node[:]...)
	b = append(b, byte(h.Kind), bit(h.Home, flagHome))
	b = append(b, h.Signature[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Pass)))
	return append(b, h.Pass...)
}

// ParseClientHello reads a payload. More bytes than known are ignored, as are unknown flags.
func ParseClientHello(p []byte) (ClientHello, error) {
	if len(p) < clientHelloLen {
		return ClientHello{}, ErrMalformed
	}
	h := ClientHello{
		Version:   p[0],
		Node:      identity.PeerID(p[1:33]),
		Kind:      ProofKind(p[33]),
		Home:      p[34]&flagHome != 0,
		Signature: [signatureLen]byte(p[35:99]),
	}
	n := int(binary.BigEndian.Uint16(p[99:]))
	if len(p)-clientHelloLen < n {
		return ClientHello{}, ErrMalformed
	}
	if n > 0 {
		h.Pass = p[clientHelloLen : clientHelloLen+n]
	}
	return h, nil
}

// AppendWelcome appends the payload of a Welcome: the address the client is seen at, zero where there is none.
func AppendWelcome(b []byte, seen netip.AddrPort) []byte {
	b = append(b, 0)
	if !seen.IsValid() {
		return append(b, make([]byte, welcomeLen-1)...)
	}
	ip := seen.Addr().As16()
	b = append(b, ip[:]...)
	return binary.BigEndian.AppendUint16(b, seen.Port())
}

// ParseWelcome reads a payload. IPv4 addresses are unmapped; the address is the zero one where the server gave none.
func ParseWelcome(p []byte) (seen netip.AddrPort, err error) {
	if len(p) < welcomeLen {
		return netip.AddrPort{}, ErrMalformed
	}
	addr := netip.AddrFrom16([16]byte(p[1:17])).Unmap()
	port := binary.BigEndian.Uint16(p[17:])
	if addr == netip.IPv6Unspecified() && port == 0 {
		return netip.AddrPort{}, nil
	}
	return netip.AddrPortFrom(addr, port), nil
}

func bit(set bool, mask byte) byte {
	if set {
		return mask
	}
	return 0
}
