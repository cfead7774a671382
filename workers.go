package meshnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/tunnel"
)

// defaultInterface is the TUN's name; a number takes the zero's place when it is taken.
const defaultInterface = "meshnet0"

// openWorkers opens the socket and the tunnel and runs both.
func (n *Node) openWorkers() error {
	n.openPool()
	conn, err := magicsock.New(magicsock.Config{
		Logger: n.log, Identity: n.id, Port: n.cfg.Port, Strict: n.cfg.PortFixed, MTU: n.cfg.MTU,
		Events: n.onSocket, Relay: n.pool, Signal: n.signal,
		STUN:        func(from netip.AddrPort, pkt []byte) { n.out.reporter.HandleSTUN(from, pkt) },
		MemberRelay: magicsock.MemberRelay{Rate: memberRelayRate(n.cfg.MemberRelayRate)},
		Rendezvous: func(from datagram.Place, pkt []byte) {
			if take := n.rendezvous.Load(); take != nil {
				(*take)(from, pkt)
			}
		},
	})
	if err != nil {
		if n.cfg.PortFixed {
			return &Hinted{err, "choose another port with --port, or leave it out to take a free one"}
		}
		return err
	}
	n.conn = conn
	n.openOutside()
	if err := n.openFinders(); err != nil {
		conn.Close()
		return err
	}
	if err := n.openTunnel(); err != nil {
		conn.Close()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.lower = cancel
	n.lowers.Go(func() { _ = n.conn.Run(ctx) }) // has no failure
	n.lowers.Go(func() { _ = n.pool.Run(ctx) }) // ends with ctx only
	n.lookAtHost()                              // first: servers see one of these addresses where nothing translates
	n.runOutside(ctx, &n.lowers)
	n.runFinders(ctx, &n.lowers)
	n.lowers.Go(func() {
		if err := n.tun.Run(ctx); err != nil {
			n.stop(err)
		}
	})
	return nil
}

// openTunnel makes the TUN that is wanted, or goes without.
func (n *Node) openTunnel() error {
	cfg := tunnel.Config{
		Logger: n.log, PrivateKey: n.id.WGPrivate(), MTU: n.cfg.MTU, Socket: n.conn,
		Network: netmap.Network{ID: n.network, Prefix6: netmap.Prefix6(n.network)},
		Control: netmap.ControlAddr(n.network, n.id.ID()),
		Want:    n.want, Established: n.established,
		Reserved: n.state.handshakesUntil(), Reserve: n.reserveHandshakes,
	}
	if n.cfg.TUN != TUNOff {
		var err error
		if n.tun, err = n.openTUN(cfg); err == nil {
			return nil
		}
		if n.cfg.TUN == TUNRequire {
			return &Hinted{fmt.Errorf("%w: %w", ErrNoTUN, err), "run as root with /dev/net/tun, or without --tun as a userspace node"}
		}
		n.noTUN = err
	}
	var err error
	n.tun, err = tunnel.New(cfg)
	return err
}

// openTUN tries the name that was asked for, or the default ones in turn.
func (n *Node) openTUN(cfg tunnel.Config) (*tunnel.Tunnel, error) {
	if n.cfg.Interface != "" {
		cfg.Interface = n.cfg.Interface
		return tunnel.New(cfg)
	}
	var err error
	for i := range 8 {
		cfg.Interface = strings.TrimSuffix(defaultInterface, "0") + strconv.Itoa(i)
		var t *tunnel.Tunnel
		if t, err = tunnel.New(cfg); err == nil || !nameTaken(err) {
			return t, err
		}
	}
	return nil, err
}

// openMesh opens the member's side of the network and hears who wants in.
func (n *Node) openMesh() error {
	listener, err := n.tun.ListenControl(control.Port)
	if err != nil {
		return err
	}
	n.mesh, err = control.New(control.Config{
		Logger: n.log, Identity: n.id, Store: n.state.store, Boot: n.conn.BootID(), Version: Version,
		Name: n.cfg.Hostname, Host: hostTag(), Port: n.conn.Port(),
		Dial: n.tun.DialControl, Listener: listener,
		Observe: func(id identity.PeerID) netip.AddrPort {
			info, _ := n.conn.Peer(id)
			if info.Path.Kind != magicsock.PathDirect { // the address of whoever passes it on
				return netip.AddrPort{}
			}
			return info.Path.Addr
		},
		Keepalive: n.tun.Keepalive, Heard: n.tun.Heard,
		Rendezvous: n.conn.SendRendezvous, RelayPass: n.bearerPass, OnSignal: n.conn.DeliverSignal,
		Provisional: func(p control.Provisional) { n.onProvisional(p, false) },
		Changed:     func(*netmap.Map) { n.poke() },
		Events:      n.onMesh,
	})
	if err != nil {
		listener.Close()
		return err
	}
	n.member.Store(true)
	take := n.mesh.HandleRendezvous
	n.rendezvous.Store(&take)
	return nil
}

// run starts what keeps the node going.
func (n *Node) run() error {
	if _, revoked := n.selfRevoked(); revoked {
		return ErrRevoked
	}
	if err := n.reconcile(); err != nil {
		return err
	}
	n.endJoin() // who let us in is a member like others now
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	if err := n.serveRelay(ctx); err != nil {
		return err
	}
	n.setRelayServers()
	n.tellReach()
	if err := n.serveProxies(ctx); err != nil {
		return err
	}
	n.wg.Go(func() {
		if err := n.mesh.Run(ctx); err != nil {
			n.log.Error("save state", "err", err)
		}
	})
	n.wg.Go(func() { n.reconcileLoop(ctx) })
	n.wg.Go(func() { n.reachLoop(ctx) })
	n.wg.Go(func() { n.watchHost(ctx) })
	n.runMemberFinders(ctx)
	n.publish(EventNodeReady, &n.applied.Load().Self, nil)
	return nil
}

func (n *Node) selfRevoked() (time.Time, bool) {
	for _, m := range n.mesh.Members() {
		if m.ID == n.id.ID() && !m.Revoked.IsZero() {
			return m.Revoked, true
		}
	}
	return time.Time{}, false
}

// reserveHandshakes keeps the reserved times of initiations. Without it a restart after a set-back clock is noticed late,
// no more.
func (n *Node) reserveHandshakes(until time.Time) {
	if err := n.state.reserveHandshakes(until); err != nil {
		n.log.Warn("keep the time of handshakes", "err", err)
	}
}

func nameTaken(err error) bool {
	return errors.Is(err, syscall.EBUSY)
}
