package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/prom"
	"github.com/meshnet/meshnet/internal/safefile"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// What is kept in the state folder.
const (
	relayCert  = "relay.pem" // the self-signed certificate and its key
	acmeFolder = "acme"      // the account with the authority, and what it issued
)

// relay runs a relay server from start to end:
//
//	sockets, certificate ─▶ URL on stdout, sd_notify ─▶ signal ─▶ restart notice to clients ─▶ sockets gone
func (a *app) relay(r relayFlags, given func(string) bool) error {
	networks, err := r.networks()
	if err == nil {
		err = r.check(given)
	}
	if wrong, ok := err.(*flagError); ok {
		return a.bad(wrong.flag, wrong.err)
	}
	defer a.host.outlive()()
	ctx, release := a.interruptible()
	defer release()
	front, err := a.openFront(r, given)
	if err != nil {
		return failed("start", err)
	}
	server := relayserver.New(relayserver.Config{
		Logger: a.logger(), Idle: r.idle, MaxFrame: r.maxFrame, Rate: int(min(r.rate, math.MaxInt)), AllowNetworks: networks, STUNPort: front.STUNPort(),
	})
	ctx, stop := context.WithCancel(ctx)
	var scraping sync.WaitGroup
	defer scraping.Wait()
	defer stop()
	if r.metrics != "" {
		metrics, err := prom.Listen(r.metrics, func() []prom.Family { return relayFamilies(front, server) })
		if err != nil {
			return errors.Join(failed("start", err), front.Close())
		}
		a.note("metrics: http://%s/metrics", metrics.Addr())
		scraping.Go(func() {
			if err := metrics.Serve(ctx); err != nil {
				a.note("%s", oneLine(err.Error()))
			}
		})
	}
	a.announceRelay(r, front)
	if _, err := fmt.Fprintln(a.stdout, front.URL()); err != nil {
		return errors.Join(failed("write", err), front.Close())
	}
	a.notifyService("READY=1")
	err = front.Run(ctx, server)
	a.notifyService("STOPPING=1")
	return failed("the relay server stopped", err)
}

// openFront listens. A default address that is taken moves to a free port.
func (a *app) openFront(r relayFlags, given func(string) bool) (*relayserver.Front, error) {
	cfg := relayserver.FrontConfig{
		Logger: a.logger(), Addr: r.addr, Public: r.public, CertFile: r.tlsCert, KeyFile: r.tlsKey,
	}
	fixed := given("addr")
	var err error
	switch {
	case r.acme != "":
		if !given("addr") {
			cfg.Addr, fixed = acmeAddr, true // nobody would look elsewhere
		}
		cfg.ACME, err = a.acmeConfig(r)
	case r.tlsCert == "":
		cfg.SelfSigned, err = a.keptFile(relayCert)
	}
	if err != nil {
		return nil, err
	}
	front, err := relayserver.Listen(cfg)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "listen" && !fixed {
		a.note("%s is taken: a free port is used instead", cfg.Addr)
		host, _, _ := net.SplitHostPort(cfg.Addr) // checked before
		cfg.Addr = net.JoinHostPort(host, "0")
		front, err = relayserver.Listen(cfg)
	}
	if errors.Is(err, fs.ErrPermission) && r.acme != "" {
		err = hinted(err, "ports below 1024 need root, or: setcap cap_net_bind_service=+ep $(which meshnet); or forward 443 to another port and name that with --addr")
	}
	return front, err
}

func (a *app) acmeConfig(r relayFlags) (relayserver.ACMEConfig, error) {
	c := relayserver.ACMEConfig{Domain: r.acme, Directory: r.acmeDirectory}
	var err error
	if c.Roots, err = readRoots(r.acmeCA); err != nil {
		return c, err
	}
	c.Cache, err = a.keptFile(acmeFolder)
	return c, err
}

// keptFile is where a file of the state folder lies; "" where there is no folder to be had that was not asked for.
func (a *app) keptFile(name string) (string, error) {
	path, err := a.writable(name)
	if err == nil || a.global.state != "" {
		return path, err
	}
	a.note("the certificate cannot be kept, so the next start has another: %s", oneLine(err.Error()))
	a.note("hint: name a folder for it with --state")
	return "", nil
}

// writable finds out whether a file of the state folder is there, or can be made.
func (a *app) writable(name string) (string, error) {
	dir, err := a.stateDir()
	if err != nil {
		return "", err
	}
	if _, err := safefile.Open(dir); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	f, err := os.Open(path)
	if err == nil {
		return path, f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	probe, err := os.CreateTemp(dir, ".probe.*.tmp")
	if err != nil {
		return "", err
	}
	return path, errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// announceRelay tells people what they have.
func (a *app) announceRelay(r relayFlags, front *relayserver.Front) {
	a.note("relay server on %s", front.Addr())
	switch n := len(r.allowNetworks); n {
	case 0:
		a.note("open to everybody; --allow-network KEY names whom it serves")
	default:
		a.note("open to the networks of %d relay keys", n)
	}
	if front.STUNPort() == 0 {
		a.note("no STUN: UDP port %d is taken", front.Addr().Port())
	}
	u := front.URL()
	if ip, err := netip.ParseAddr(u.Host); err == nil && r.public == "" && (ip.IsPrivate() || ip.IsLoopback()) {
		a.note("%s is an address that outsiders do not reach; --public HOST:PORT names another", ip)
	}
	a.note("use it with: meshnet up --relay-server '%s'", u)
}

// relayFamilies are the metrics of a relay server on its own.
func relayFamilies(front *relayserver.Front, server *relayserver.Server) []prom.Family {
	build := prom.Family{
		Name: "meshnet_build_info", Help: "The version that runs.", Type: prom.Gauge,
		Samples: []prom.Sample{prom.Of(1, "version", meshnet.Version)},
	}
	families := append([]prom.Family{build}, prom.Gather(server.Counters(), prom.RelayServer)...)
	return append(families, prom.Gather(front.Counters(), prom.RelayFront)...)
}
