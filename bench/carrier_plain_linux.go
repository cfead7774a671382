package main

import (
	"context"

	"github.com/meshnet/meshnet/internal/netlab"
)

// plainMTU is the plain forwarder's own MTU: that of WireGuard, whose datagrams have the same overhead.
const plainMTU = 1420

func startPlain(ctx context.Context, s *site) (*lane, error) {
	return startForwarder(ctx, s, namePlain, "none")
}

func startPlainChacha(ctx context.Context, s *site) (*lane, error) {
	return startForwarder(ctx, s, nameChacha, "chacha")
}

// startForwarder runs this program's own forwarder on both sides.
func startForwarder(ctx context.Context, s *site, name, crypt string) (*lane, error) {
	const device, port = "fwd0", ":7000"
	l := s.lane(name, 0)
	l.give("10.77.0.1", "10.77.0.2")
	mtu := s.mtu
	if mtu == 0 {
		mtu = plainMTU
	}
	for _, end := range [][2]*side{{l.a, l.b}, {l.b, l.a}} {
		var err error
		end[0].daemon, err = end[0].host.Start(netlab.Proc{Path: s.self, Args: []string{
			"forward", "-tun", device, "-crypt", crypt,
			"-listen", end[0].outer.String() + port, "-peer", end[1].outer.String() + port,
		}})
		if err != nil {
			return l, err
		}
		if err := end[0].setDevice(ctx, device, mtu); err != nil {
			return l, err
		}
	}
	return l, l.proven(ctx)
}
