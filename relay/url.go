package relay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// defaultPort is that of https URLs.
const defaultPort = 443

// Errors of ParseURL, which wraps them with the text that it was given.
var (
	ErrScheme = errors.New("a relay URL begins with https://")
	ErrHost   = errors.New("a relay URL names a host: a DNS name (xn--… for other than ASCII), an IPv4 address, or an IPv6 address in brackets")
	ErrPort   = errors.New("the port of a relay URL is a number from 1 to 65535")
	ErrPath   = errors.New("a relay URL ends after the port, but for #sha256=…: no user, path or query")
	ErrPinHex = errors.New("the pin of a relay URL is #sha256= and 64 hexadecimal digits")
)

// URL is where a relay server is, and how it proves that it is the right one: by its certificate's hash, or by a
// certificate for its name from a known authority. URLs that mean the same are equal.
type URL struct {
	Host string // a DNS name in lower case (A-labels), or an address without brackets
	Port uint16
	Pin  [sha256.Size]byte // SHA-256 of the certificate's DER; zero: none, authorities decide
}

// ParseURL reads https://host[:port][#sha256=HEX]; without a port it is 443. A single slash after it is ignored.
func ParseURL(text string) (URL, error) {
	u, err := parseURL(text)
	if err != nil {
		return URL{}, fmt.Errorf("relay URL %q: %w", text, err)
	}
	return u, nil
}

func parseURL(text string) (URL, error) {
	const scheme = "https://"
	if len(text) < len(scheme) || !strings.EqualFold(text[:len(scheme)], scheme) {
		return URL{}, ErrScheme
	}
	rest, fragment, pinned := strings.Cut(text[len(scheme):], "#")
	rest = strings.TrimSuffix(rest, "/")
	if strings.ContainsAny(rest, "/?@\\") {
		return URL{}, ErrPath
	}
	u := URL{Port: defaultPort}
	host, port, err := splitHostPort(rest)
	if err != nil {
		return URL{}, err
	}
	if port != "" {
		if u.Port, err = parsePort(port); err != nil {
			return URL{}, err
		}
	}
	if u.Host, err = parseHost(host); err != nil {
		return URL{}, err
	}
	if pinned {
		if u.Pin, err = parsePin(fragment); err != nil {
			return URL{}, err
		}
	}
	return u, nil
}

// splitHostPort takes a host and an optional port apart. An IPv6 address keeps its brackets.
func splitHostPort(s string) (host, port string, err error) {
	after := strings.LastIndexByte(s, ']') + 1
	colon := strings.IndexByte(s[after:], ':')
	if colon < 0 {
		return s, "", nil
	}
	host, port = s[:after+colon], s[after+colon+1:]
	if strings.Contains(port, ":") {
		return "", "", ErrHost // an IPv6 address without brackets
	}
	if port == "" {
		return "", "", ErrPort
	}
	return host, port, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, ErrPort
	}
	return uint16(n), nil
}

func parseHost(s string) (string, error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", ErrHost
		}
		return addr.Unmap().String(), nil
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		if !addr.Is4() {
			return "", ErrHost
		}
		return addr.String(), nil
	}
	name := strings.TrimSuffix(s, ".")
	if !hostName(name) {
		return "", ErrHost
	}
	return strings.ToLower(name), nil
}

const hostNameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

// hostName reports whether s is a name that DNS can hold and cannot be taken for an address.
func hostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, hostNameBytes) != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" // 127.1, 0177.0.0.1: some systems read these as addresses
}

func parsePin(fragment string) (pin [sha256.Size]byte, err error) {
	digits, ok := strings.CutPrefix(fragment, "sha256=")
	if !ok || len(digits) != hex.EncodedLen(len(pin)) {
		return pin, ErrPinHex
	}
	if _, err := hex.Decode(pin[:], []byte(digits)); err != nil {
		return pin, ErrPinHex
	}
	if pin == ([sha256.Size]byte{}) {
		return pin, ErrPinHex // it would mean that there is none
	}
	return pin, nil
}

// Pinned reports whether only the certificate with that hash counts.
func (u URL) Pinned() bool { return u.Pin != [sha256.Size]byte{} }

// HostPort is what to connect to. IPv6 addresses are in brackets.
func (u URL) HostPort() string { return net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port))) }

// String is the URL in the one form in which every URL of that meaning is written: ParseURL reads it back. Port 443
// is left out.
func (u URL) String() string {
	s := u.base()
	if u.Pinned() {
		s += "#sha256=" + hex.EncodeToString(u.Pin[:])
	}
	return s
}

// base is the URL without its pin.
func (u URL) base() string {
	if u.Port != defaultPort {
		return "https://" + u.HostPort()
	}
	if strings.Contains(u.Host, ":") {
		return "https://[" + u.Host + "]"
	}
	return "https://" + u.Host
}

// url is the same for net/http, without the pin.
func (u URL) url() *url.URL {
	return &url.URL{Scheme: "https", Host: strings.TrimPrefix(u.base(), "https://")}
}
