package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// relayFlags are the flags of `relay`, as they were given.
type relayFlags struct {
	addr          string
	public        string
	idle          time.Duration
	maxFrame      int
	rate          rate
	tlsCert       string
	tlsKey        string
	acme          string
	acmeDirectory string
	acmeCA        string
	allowNetworks []string
	metrics       string
}

const (
	minRelayIdle = 3 * time.Second
	acmeAddr     = ":443" // where an ACME authority looks (RFC 8737 §3)
)

func (a *app) relayCommand() *cobra.Command {
	var r relayFlags
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Run a relay server on its own",
		Long: `Runs a relay server: it carries sealed packets between nodes that no direct path joins, and tells nodes their
address (STUN). It reads nothing of what it carries, belongs to no network, and needs neither root nor an identity.
Everybody may use it, unless --allow-network names whom it serves: the key that meshnet status --json shows as
network.relay_key.

Once it is ready it prints its URL on stdout, for: meshnet up --relay-server URL. Without a certificate of your own
it makes one, keeps it in the state folder, and pins it in the URL. Ctrl-C or SIGTERM ends it: clients are told to
come back later.`,
		Example: `  meshnet relay --public relay.example.org:9000
  meshnet relay --acme relay.example.org
  meshnet relay --allow-network "$(meshnet status --json | jq -r .network.relay_key)" --metrics 127.0.0.1:9100`,
		Args: exactly(0),
	}
	f := cmd.Flags()
	f.StringVar(&r.addr, "addr", defaultRelayAddr, "`address` to listen on, TCP and UDP; a default one that is taken moves to a free port (with --acme "+acmeAddr+")")
	f.StringVar(&r.public, "public", "", "`host:port` where others reach it, for its URL (default: the certificate's name, or an address of this machine)")
	f.DurationVar(&r.idle, "idle", relayserver.DefaultIdle, "hang up on a client that says nothing for so long")
	f.IntVar(&r.maxFrame, "max-frame", relay.DefaultMaxFrame, fmt.Sprintf("largest frame in `bytes`, up to %d", relay.MaxMaxFrame))
	f.Var(&r.rate, "rate", "how much one client may send (bit, kbit, Mbit, Gbit); 0: no limit")
	f.StringVar(&r.tlsCert, "tls-cert", "", "PEM `file` with a certificate chain (default: self-signed)")
	f.StringVar(&r.tlsKey, "tls-key", "", "PEM `file` with its key (default: the same file)")
	f.StringVar(&r.acme, "acme", "", "get a certificate for this `domain` from Let's Encrypt, whose terms you accept by that; it has to reach this server as port 443 of the domain")
	f.StringVar(&r.acmeDirectory, "acme-directory", "", "`URL` of another authority of that kind (RFC 8555)")
	f.StringVar(&r.acmeCA, "acme-ca", "", "PEM `file` of the authorities by which its own server is known (default: the system's)")
	f.StringSliceVar(&r.allowNetworks, "allow-network", nil, "relay `key` of a network that may use it; may be repeated (default: everybody)")
	f.StringVar(&r.metrics, "metrics", "", "`address` where Prometheus reads metrics, at /metrics (default: none)")
	cmd.RunE = a.does(func(cmd *cobra.Command, _ []string) error { return a.relay(r, cmd.Flags().Changed) })
	return cmd
}

// check finds values that mean nothing.
func (r *relayFlags) check(given func(string) bool) error {
	switch {
	case r.idle < minRelayIdle:
		return &flagError{"idle", fmt.Errorf("%s is less than %s", r.idle, minRelayIdle)}
	case r.maxFrame < relay.MinMaxFrame || r.maxFrame > relay.MaxMaxFrame:
		return &flagError{"max-frame", fmt.Errorf("%d is not within %d to %d", r.maxFrame, relay.MinMaxFrame, relay.MaxMaxFrame)}
	case given("acme") && !isDomain(r.acme):
		return &flagError{"acme", fmt.Errorf("%q is no domain name", r.acme)}
	case r.acme != "" && (r.tlsCert != "" || r.tlsKey != ""):
		return &flagError{"acme", errors.New("not together with --tls-cert and --tls-key")}
	case r.acme == "" && r.acmeDirectory != "":
		return &flagError{"acme-directory", errors.New("only together with --acme")}
	case r.acme == "" && r.acmeCA != "":
		return &flagError{"acme-ca", errors.New("only together with --acme")}
	}
	if u, err := url.Parse(r.acmeDirectory); r.acmeDirectory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		return &flagError{"acme-directory", fmt.Errorf("%q is no https URL", r.acmeDirectory)}
	}
	if err := checkCertificate(r.tlsCert, r.tlsKey); err != nil {
		return &flagError{"tls-cert", err}
	}
	if _, err := readRoots(r.acmeCA); err != nil {
		return &flagError{"acme-ca", err}
	}
	return checkHostPorts([]hostPorts{
		{"addr", []string{r.addr}, true},
		{"public", nonEmpty(r.public), false},
		{"metrics", nonEmpty(r.metrics), true},
	})
}

// networks are the keys of --allow-network.
func (r *relayFlags) networks() ([]identity.PeerID, error) {
	var all []identity.PeerID
	for _, text := range r.allowNetworks {
		var key identity.PeerID
		raw, err := hex.DecodeString(strings.TrimSpace(text))
		if err != nil || len(raw) != len(key) {
			return nil, &flagError{"allow-network", fmt.Errorf("%q is no relay key: %d hexadecimal digits", text, hex.EncodedLen(len(key)))}
		}
		copy(key[:], raw)
		all = append(all, key)
	}
	return all, nil
}

// isDomain reports whether a certificate authority can know the name: not an address, and with nothing behind it.
func isDomain(name string) bool {
	u, err := relay.ParseURL("https://" + name)
	_, notAddr := netip.ParseAddr(name)
	return err == nil && notAddr != nil && strings.EqualFold(u.Host, name) && strings.Contains(name, ".")
}
