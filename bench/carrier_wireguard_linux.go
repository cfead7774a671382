package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"path/filepath"

	"github.com/meshnet/meshnet/internal/netlab"
)

const wireguardModule = "golang.zx2c4.com/wireguard"

// startWireGuard runs the wireguard module's own program, of the version that go.mod names, on both sides.
func startWireGuard(ctx context.Context, s *site) (*lane, error) {
	const device, port = "wg0", 51820
	if s.bare == "" {
		bin := filepath.Join(s.dir, "wireguard-go")
		if err := build(ctx, bin, wireguardModule); err != nil {
			return nil, err
		}
		s.bare = bin
	}
	l := s.lane(nameWireGuard, 0)
	l.give("10.77.0.1", "10.77.0.2")
	var keys [2]*ecdh.PrivateKey
	sides := []*side{l.a, l.b}
	for i, x := range sides {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return l, err
		}
		x.daemon, err = x.host.Start(netlab.Proc{
			Path: s.bare, Args: []string{"-f", device}, Env: []string{"LOG_LEVEL=error"},
		})
		if err != nil {
			return l, err
		}
	}
	for i, x := range sides {
		peer := sides[1-i]
		// The cross-platform userspace interface of wireguard.com/xplatform.
		set := fmt.Sprintf("set=1\nprivate_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s:%d\nallowed_ip=%s/32\n\n",
			hex.EncodeToString(keys[i].Bytes()), port,
			hex.EncodeToString(keys[1-i].PublicKey().Bytes()), peer.outer, port, peer.inner)
		if err := x.tellWireGuard(ctx, "/var/run/wireguard/"+device+".sock", set); err != nil {
			return l, err
		}
		if err := x.setDevice(ctx, device, s.mtu); err != nil {
			return l, err
		}
	}
	return l, l.proven(ctx)
}

// tellWireGuard configures the program at a socket, which it waits for.
func (x *side) tellWireGuard(ctx context.Context, socket, set string) error {
	var c net.Conn
	err := poll(ctx, func() error {
		return x.host.Inside(func() (err error) {
			c, err = net.Dial("unix", socket)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("configure wireguard-go: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(set)); err != nil {
		return fmt.Errorf("configure wireguard-go: %w", err)
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || answer != "errno=0\n" {
		return fmt.Errorf("configure wireguard-go: %q, %w", answer, err)
	}
	return nil
}
