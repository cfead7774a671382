package proxy

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
)

const (
	socksVersion = 5

	methodNone         = 0x00
	methodUnacceptable = 0xff

	commandConnect = 1

	kindIPv4 = 1
	kindName = 3
	kindIPv6 = 4

	replyDone            = 0
	replyFailed          = 1
	replyDenied          = 2
	replyNetUnreachable  = 3
	replyHostUnreachable = 4
	replyRefused         = 5
	replyBadCommand      = 7
	replyBadKind         = 8
)

// Errors of the parser.
var (
	errVersion = errors.New("socks: not version 5")
	errKind    = errors.New("socks: unknown kind of address")
	errName    = errors.New("socks: malformed name")
	errField   = errors.New("socks: reserved field is not zero")
)

// message is a request or a reply: they have the same form (RFC 1928 §4, §6).
//
//	5 ‖ code ‖ 0 ‖ kind ‖ address ‖ port (2, big endian)
//	address: 4 bytes, 16 bytes, or a length (1) and that many bytes of a name
type message struct {
	code byte // command or reply
	kind byte
	addr []byte // without a name's length
	port uint16
}

// readMethods reads the greeting, 5 ‖ count ‖ methods, and reports whether it offers to go without authentication.
// It reads not a byte more.
func readMethods(r io.Reader) (none bool, err error) {
	var b [255]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return false, err
	}
	if b[0] != socksVersion {
		return false, errVersion
	}
	methods := b[:b[1]]
	if _, err := io.ReadFull(r, methods); err != nil {
		return false, err
	}
	for _, m := range methods {
		none = none || m == methodNone
	}
	return none, nil
}

// readMessage reads one message and not a byte more.
func readMessage(r io.Reader) (m message, err error) {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return m, err
	}
	if b[0] != socksVersion {
		return m, errVersion
	}
	if b[2] != 0 {
		return m, errField
	}
	m.code, m.kind = b[1], b[3]
	var size int
	switch m.kind {
	case kindIPv4:
		size = 4
	case kindIPv6:
		size = 16
	case kindName:
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return m, err
		}
		size = int(b[0])
	default:
		return m, errKind
	}
	rest := make([]byte, size+2)
	if _, err := io.ReadFull(r, rest); err != nil {
		return m, err
	}
	m.addr, m.port = rest[:size:size], binary.BigEndian.Uint16(rest[size:])
	if m.kind == kindName && !printable(m.addr) {
		return m, errName
	}
	return m, nil
}

// printable keeps control characters and blanks out of logs and resolvers.
func printable(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return len(name) > 0
}

func (m message) append(b []byte) []byte {
	b = append(b, socksVersion, m.code, 0, m.kind)
	if m.kind == kindName {
		b = append(b, byte(len(m.addr)))
	}
	b = append(b, m.addr...)
	return binary.BigEndian.AppendUint16(b, m.port)
}

// hostport is the address as Dial takes it.
func (m message) hostport() string {
	host := string(m.addr)
	if m.kind != kindName {
		a, _ := netip.AddrFromSlice(m.addr)
		host = a.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(m.port)))
}

// replyWith is a reply that tells addr, or nothing when it is not an IP address.
func replyWith(code byte, addr net.Addr) message {
	m := message{code: code, kind: kindIPv4, addr: make([]byte, 4)}
	if addr == nil {
		return m
	}
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return m
	}
	m.addr, m.port = ap.Addr().Unmap().AsSlice(), ap.Port()
	if len(m.addr) == 16 {
		m.kind = kindIPv6
	}
	return m
}
