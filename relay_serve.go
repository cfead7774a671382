package meshnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"syscall"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// relayCertFile keeps the self-signed certificate of the relay server and its key, in the state folder.
const relayCertFile = "relay.pem"

// ownRelay is the relay server in this node. nil: there is none. Immutable.
type ownRelay struct {
	front  *relayserver.Front
	server *relayserver.Server
}

// serveRelay runs a relay server for this network until ctx ends.
func (n *Node) serveRelay(ctx context.Context) error {
	if n.cfg.Relay == nil {
		return nil
	}
	cfg := relayserver.FrontConfig{
		Logger: n.log, Addr: n.cfg.Relay.Addr, Public: n.cfg.Relay.Public,
		CertFile: n.cfg.Relay.TLSCert, KeyFile: n.cfg.Relay.TLSKey,
	}
	if cfg.Addr == "" {
		cfg.Addr = relayserver.DefaultAddr
	}
	if cfg.CertFile == "" && n.cfg.Dir != "" {
		cfg.SelfSigned = filepath.Join(n.cfg.Dir, relayCertFile)
	}
	front, err := relayserver.Listen(cfg)
	if errors.Is(err, syscall.EADDRINUSE) && !n.cfg.Relay.AddrFixed {
		cfg.Addr = ":0"
		front, err = relayserver.Listen(cfg)
	}
	if err != nil {
		return &Hinted{fmt.Errorf("relay server: %w", err), "choose another address with --relay-addr, or do without --relay"}
	}
	key := identity.FromSeed(n.mesh.RelayKey()).ID()
	server := relayserver.New(relayserver.Config{
		Logger: n.log, AllowNetworks: []identity.PeerID{key}, STUNPort: front.STUNPort(),
	})
	n.relay.Store(&ownRelay{front, server})
	n.wg.Go(func() {
		if err := front.Run(ctx, server); err != nil {
			n.log.Error("relay server", "err", err)
			n.publish(EventError, nil, map[string]any{"text": "relay server: " + err.Error()})
		}
	})
	n.log.Info("relay server", "url", front.URL())
	if err := n.mesh.SetRelayURL(front.URL().String()); err != nil {
		return fmt.Errorf("relay server: %w", err)
	}
	return nil
}

// addr is where the relay server listens; zero: there is none.
func (r *ownRelay) addr() netip.AddrPort {
	if r == nil {
		return netip.AddrPort{}
	}
	return r.front.Addr()
}

// url is the relay server's; "": there is none.
func (r *ownRelay) url() string {
	if r == nil {
		return ""
	}
	return r.front.URL().String()
}
