package lists

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultPort is the UDP port of an entry that names none.
const DefaultPort = 41820

// Why an entry is none.
var (
	errEmpty = errors.New("empty")
	errPort  = errors.New("the port is not a number from 1 to 65535")
	errHost  = errors.New("neither an address nor a host name")
)

// Entry is a host and a UDP port, as lists name them. Comparable; two that mean the same by their letters are equal.
type Entry struct {
	Host string     // a name in lower case, without a final dot; "" if Addr is valid
	Addr netip.Addr // the address, where the host is written as one; never IPv4 in IPv6
	Port uint16     // never 0
}

// ParseEntry reads "host:port", "address:port", "[IPv6]:port", or any of them without the port, which is then 41820. It
// fails on what is no such thing; whether the host exists is not looked at.
func ParseEntry(s string) (Entry, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return Entry{}, errEmpty
	}
	if a, ok := address(s); ok {
		return Entry{Addr: a, Port: DefaultPort}, nil
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, port, ok := strings.Cut(inner, "]")
		a, isAddr := address(inner)
		if !ok || !isAddr || !strings.Contains(inner, ":") {
			return Entry{}, errHost
		}
		rest, n, err := splitPort(port)
		switch {
		case err != nil:
			return Entry{}, err
		case rest != "":
			return Entry{}, errHost
		}
		return Entry{Addr: a, Port: n}, nil
	}
	host, port, err := splitPort(s)
	if err != nil {
		return Entry{}, err
	}
	if a, ok := address(host); ok && !strings.Contains(host, ":") {
		return Entry{Addr: a, Port: port}, nil
	}
	name, ok := hostName(host)
	if !ok {
		return Entry{}, errHost
	}
	return Entry{Host: name, Port: port}, nil
}

// address reads an address, with the interface's name where there is one.
func address(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	odd := strings.ContainsFunc(a.Zone(), func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("[]%:#\"", r)
	})
	return a.Unmap(), err == nil && !odd
}

// splitPort takes the port from the end of an entry.
func splitPort(s string) (string, uint16, error) {
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		return s, DefaultPort, nil
	}
	digits := s[at+1:]
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || digits[0] == '+' {
		return "", 0, errPort
	}
	return s[:at], uint16(n), nil
}

// hostName is a name as Entry has it. It fails on what no host is called (RFC 1123 §2.1, but underscores are common).
func hostName(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if s == "" || len(s) > 253 {
		return "", false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return "", false
			}
		}
		last = label
	}
	// A last label of digits is an address that went wrong.
	return s, strings.Trim(last, "0123456789") != ""
}

// IsLiteral reports whether the host is written as an address.
func (e Entry) IsLiteral() bool { return e.Addr.IsValid() }

// String is the entry as ParseEntry reads it, always with the port.
func (e Entry) String() string {
	if e.IsLiteral() {
		return netip.AddrPortFrom(e.Addr, e.Port).String()
	}
	return e.Host + ":" + strconv.Itoa(int(e.Port))
}
