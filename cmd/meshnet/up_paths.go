package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/pflag"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/relay"
)

// pathFlags are the flags of `up` about how packets get to others, as they were given.
type pathFlags struct {
	stun            []string
	portMap         bool
	relayServers    []string
	relayCA         string
	relay           bool
	relayAddr       string
	relayPublic     string
	relayTLSCert    string
	relayTLSKey     string
	memberRelay     string
	memberRelayRate rate
}

const (
	defaultRelayAddr       = ":9000"
	defaultMemberRelayRate = 20e6 / 8 // bytes per second: 20Mbit
)

// forRelay are the flags that mean nothing on a node that is no relay server.
var forRelay = []string{"relay-addr", "relay-public", "relay-tls-cert", "relay-tls-key"}

func (p *pathFlags) add(f *pflag.FlagSet) {
	p.memberRelayRate = defaultMemberRelayRate
	f.StringSliceVar(&p.stun, "stun", nil, "`host:port` of a STUN server to ask for the own address, besides the relay servers; may be repeated")
	f.BoolVar(&p.portMap, "portmap", true, "ask the router for a port (PCP, NAT-PMP, UPnP)")
	f.StringSliceVar(&p.relayServers, "relay-server", nil, "`URL` of a relay server, https://host:port#sha256=HEX, besides those of members; may be repeated")
	f.StringVar(&p.relayCA, "relay-ca", "", "PEM `file` of the authorities that certificates of relay servers may come from (default: the system's)")
	f.BoolVar(&p.relay, "relay", false, "be a relay server too; an admin has to approve it: meshnet members approve NODE")
	f.StringVar(&p.relayAddr, "relay-addr", defaultRelayAddr, "`address` on which the relay server listens, TCP and UDP")
	f.StringVar(&p.relayPublic, "relay-public", "", "`host:port` where others reach the relay server (default: the certificate's name, or an address of this machine)")
	f.StringVar(&p.relayTLSCert, "relay-tls-cert", "", "PEM `file` with the relay server's certificate chain (default: self-signed, and pinned in the URL)")
	f.StringVar(&p.relayTLSKey, "relay-tls-key", "", "PEM `file` with its key (default: the same file)")
	f.StringVar(&p.memberRelay, "member-relay", string(meshnet.MemberRelayAuto), "pass on packets between members that reach each other in no other way: auto, on or off; auto: where this node is reachable and its link not metered")
	f.Var(&p.memberRelayRate, "member-relay-rate", "how much of that at most (bit, kbit, Mbit, Gbit); 0: no limit")
}

// check finds values that mean nothing, and settings of a relay server where there is to be none.
func (p *pathFlags) check(given func(string) bool) error {
	for _, flag := range forRelay {
		if given(flag) && !p.relay {
			return &flagError{flag, errors.New("only together with --relay")}
		}
	}
	if err := checkCertificate(p.relayTLSCert, p.relayTLSKey); err != nil {
		return &flagError{"relay-tls-cert", err}
	}
	switch m := meshnet.MemberRelayMode(p.memberRelay); m {
	case meshnet.MemberRelayAuto, meshnet.MemberRelayOn, meshnet.MemberRelayOff:
	default:
		return &flagError{"member-relay", fmt.Errorf("%q is none of auto, on, off", m)}
	}
	for _, text := range p.relayServers {
		if _, err := relay.ParseURL(text); err != nil {
			return &flagError{"relay-server", err}
		}
	}
	return checkHostPorts([]hostPorts{
		{"stun", p.stun, false},
		{"relay-addr", nonEmpty(p.relayAddr), true},
		{"relay-public", nonEmpty(p.relayPublic), false},
	})
}

// config fills in what the flags mean. They were checked.
func (p *pathFlags) config(c *meshnet.Config, given func(string) bool) error {
	c.STUN, c.PortMap, c.RelayServers = p.stun, p.portMap, p.relayServers
	c.MemberRelay, c.MemberRelayRate = meshnet.MemberRelayMode(p.memberRelay), int64(p.memberRelayRate)
	if p.memberRelayRate == 0 {
		c.MemberRelayRate = -1 // no limit
	}
	var err error
	if c.RelayRoots, err = readRoots(p.relayCA); err != nil {
		return &flagError{"relay-ca", err}
	}
	if p.relay {
		c.Relay = &meshnet.RelayConfig{
			Addr: p.relayAddr, AddrFixed: given("relay-addr"), Public: p.relayPublic,
			TLSCert: p.relayTLSCert, TLSKey: p.relayTLSKey,
		}
	}
	return nil
}

// readRoots reads authorities. No file: nil, for the system's.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fileError(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return roots, nil
}

// checkCertificate finds files that hold no certificate and its key, before anything is started. No files are good.
func checkCertificate(cert, key string) error {
	switch {
	case cert == "" && key == "":
		return nil
	case cert == "":
		return errors.New("the certificate to this key is missing")
	case key == "":
		key = cert
	}
	_, err := tls.LoadX509KeyPair(cert, key)
	return fileError(err)
}

// fileError is why a file could not be read, without the name of the system call.
func fileError(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("read %s: %w", p.Path, p.Err)
	}
	return err
}
