package meshnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/discovery"
	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	// joinQueue is how many answers wait while one is handled. When it is full, new ones are dropped: they come again.
	joinQueue = 64
	// joinHintAfter is when a join that nobody answers says what would help.
	joinHintAfter = 10 * time.Second
)

// join asks to be let in until somebody does, or it is over.
func (n *Node) join(ctx context.Context, token ledger.Token) error {
	if n.cfg.JoinTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, n.cfg.JoinTimeout, ErrJoinTimeout)
		defer cancel()
	}
	packets := make(chan control.Datagram, joinQueue)
	take := func(from datagram.Place, pkt []byte) {
		select {
		case packets <- control.Datagram{From: from, Data: bytes.Clone(pkt)}:
		default:
		}
	}
	n.rendezvous.Store(&take)
	n.passes.use(token.RelayPass)
	last := "nobody answered"
	hint := time.AfterFunc(joinHintAfter, func() {
		n.log.Warn("still asking to be let in; is a member running that this host reaches over UDP?",
			"asked", n.asks(token))
	})
	defer hint.Stop()
	seeking, found := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer n.endSeeking()
	defer wg.Wait()
	defer found()
	if err := n.seekEntrance(seeking, &wg, token); err != nil {
		return err
	}
	err := control.Enter(ctx, control.Entrance{
		Logger: n.log, Identity: n.id, Token: token, Found: n.seek.found, Store: n.state.store,
		Resolve: discovery.Resolve, Send: n.conn.SendRendezvous, UseRelay: n.useRelay, Packets: packets, Dial: n.tun.DialControl,
		Provisional: func(p control.Provisional) { n.onProvisional(p, true) },
		Refused: func(reason string) {
			last = reason
			n.log.Info("not let in yet", "reason", reason)
		},
	})
	return joinError(ctx, err, last)
}

// asks are whom the join asks, as people call them.
func (n *Node) asks(token ledger.Token) []string {
	var all []string
	for _, h := range token.Hints {
		all = append(all, h.Addr)
	}
	all = append(all, n.cfg.Bootstrap...)
	for _, list := range []string{n.cfg.BootstrapFile, n.cfg.BootstrapDNS} {
		if list != "" {
			all = append(all, list)
		}
	}
	if n.cfg.MDNS {
		all = append(all, "members on this network")
	}
	if n.cfg.DHT {
		all = append(all, "the DHT")
	}
	return all
}

// joinError is the error that users meet.
func joinError(ctx context.Context, err error, last string) error {
	const another = "ask for a new token: meshnet invite"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrInviteExpired):
		return &Hinted{fmt.Errorf("join: %w", ErrInviteExpired), another}
	case errors.Is(err, control.ErrInviteUsed):
		return &Hinted{fmt.Errorf("join: %w", ErrInviteUsed), another}
	case errors.Is(err, control.ErrInviteRevoked):
		return &Hinted{fmt.Errorf("join: %w", ErrRevoked), another}
	case errors.Is(context.Cause(ctx), ErrJoinTimeout):
		return &Hinted{
			fmt.Errorf("join: %w (%s)", ErrJoinTimeout, last),
			"check that a member is running and reachable over UDP, or name one with --bootstrap HOST:PORT",
		}
	}
	return fmt.Errorf("join: %w", err)
}
