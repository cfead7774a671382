package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/meshnet/meshnet/internal/netlab"
)

const relayPort = "9000"

// The kinds of paths, as status names them.
const (
	pathMember = "member"
	pathRelay  = "relay"
)

// startRelay runs two nodes that reach nothing but a relay server between them, by TLS.
func startRelay(ctx context.Context, s *site) (*lane, error) {
	if err := s.buildMeshnet(ctx); err != nil {
		return nil, err
	}
	l := s.farLane(nameRelay)
	url, err := s.startRelayServer(ctx, l.mid)
	if err != nil {
		return l, err
	}
	flags := append(s.mtuFlags(), "--relay-server", url)
	if err := s.startNode(ctx, l.a, append([]string{"--hostname", nodeA}, flags...)); err != nil {
		return l, err
	}
	if err := s.housed(ctx, l.a); err != nil { // its invite is to say where it is found
		return l, err
	}
	if err := s.joinNode(ctx, l.b, l.a, append([]string{"--hostname", nodeB}, flags...)); err != nil {
		return l, err
	}
	return l, s.provenBy(ctx, l, pathRelay)
}

// startMember runs two nodes that reach nothing but a third one, which passes their packets on over UDP and has no
// limit for that.
func startMember(ctx context.Context, s *site) (*lane, error) {
	if err := s.buildMeshnet(ctx); err != nil {
		return nil, err
	}
	l := s.farLane(nameMember)
	founder := []string{"--hostname", nodeM, "--member-relay", "on", "--member-relay-rate", "0"}
	if err := s.startNode(ctx, l.mid, append(founder, s.mtuFlags()...)); err != nil {
		return l, err
	}
	for _, end := range []struct {
		side *side
		name string
	}{{l.a, nodeA}, {l.b, nodeB}} {
		if err := s.joinNode(ctx, end.side, l.mid, append([]string{"--hostname", end.name}, s.mtuFlags()...)); err != nil {
			return l, err
		}
	}
	return l, s.provenBy(ctx, l, pathMember)
}

// startRelayServer returns the server's URL once it is ready.
func (s *site) startRelayServer(ctx context.Context, x *side) (url string, err error) {
	if x.daemon, err = x.host.Start(netlab.Proc{Path: s.meshnet, Args: []string{
		"relay", "--state", x.dir, "--addr", ":" + relayPort, "--public", x.outer.String() + ":" + relayPort,
	}}); err != nil {
		return "", err
	}
	err = poll(ctx, func() error {
		for line := range strings.Lines(x.daemon.Output()) {
			if strings.HasPrefix(line, "https://") && strings.HasSuffix(line, "\n") {
				url = strings.TrimSpace(line)
				return nil
			}
		}
		return fmt.Errorf("no URL of a relay server in %q", x.daemon.Output())
	})
	return url, err
}

// housed returns when a node has a home.
func (s *site) housed(ctx context.Context, x *side) error {
	return poll(ctx, func() error {
		status, err := s.status(ctx, x)
		if err == nil && len(status.Self.Homes) == 0 {
			err = errors.New("the node has no home")
		}
		return err
	})
}

// provenBy returns when an echo has come back through the lane, and both nodes say that their path to each other is
// of a kind: what is measured is to be what it is called.
func (s *site) provenBy(ctx context.Context, l *lane, kind string) error {
	if err := l.proven(ctx); err != nil {
		return err
	}
	return poll(ctx, func() error {
		for _, end := range []struct {
			side *side
			to   string
		}{{l.a, nodeB}, {l.b, nodeA}} {
			status, err := s.status(ctx, end.side)
			if err != nil {
				return err
			}
			if is := status.path(end.to); is != kind {
				return fmt.Errorf("the path to %s is %q, not %q", end.to, is, kind)
			}
		}
		return nil
	})
}
