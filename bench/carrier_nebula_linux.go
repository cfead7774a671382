package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/meshnet/meshnet/internal/netlab"
)

// startNebula runs nebula on both sides, each of which knows where the other one is; there is no lighthouse.
func startNebula(ctx context.Context, s *site) (*lane, error) {
	l := s.lane(nameNebula, 0)
	l.give("10.77.0.1", "10.77.0.2")
	dir := l.a.dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return l, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if _, err := l.a.host.Run(ctx, "nebula-cert", "ca", "-name", "bench",
		"-out-crt", in("ca.crt"), "-out-key", in("ca.key")); err != nil {
		return l, err
	}
	for i, end := range [][2]*side{{l.a, l.b}, {l.b, l.a}} {
		x, peer := end[0], end[1]
		node := fmt.Sprintf("node%d", i)
		if _, err := x.host.Run(ctx, "nebula-cert", "sign", "-name", node, "-ip", x.inner.String()+"/24",
			"-ca-crt", in("ca.crt"), "-ca-key", in("ca.key"), "-out-crt", in(node+".crt"), "-out-key", in(node+".key")); err != nil {
			return l, err
		}
		text := nebulaConfig(dir, node, peer.inner.String(), peer.outer.String(), s.mtu)
		if err := os.WriteFile(in(node+".yml"), []byte(text), 0o600); err != nil {
			return l, err
		}
		var err error
		x.daemon, err = x.host.Start(netlab.Proc{Path: "nebula", Args: []string{"-config", in(node + ".yml")}})
		if err != nil {
			return l, err
		}
	}
	return l, l.proven(ctx)
}

// nebulaConfig is the configuration of one node. An mtu of 0 leaves nebula its own.
func nebulaConfig(dir, node, peerInner, peerOuter string, mtu int) string {
	device := "tun:\n  dev: nebula0\n"
	if mtu > 0 {
		device += fmt.Sprintf("  mtu: %d\n", mtu)
	}
	return fmt.Sprintf(`pki:
  ca: %[1]s/ca.crt
  cert: %[1]s/%[2]s.crt
  key: %[1]s/%[2]s.key
static_host_map:
  "%[3]s": ["%[4]s:4242"]
lighthouse:
  am_lighthouse: false
listen:
  host: 0.0.0.0
  port: 4242
punchy:
  punch: false
logging:
  level: error
firewall:
  outbound:
    - {port: any, proto: any, host: any}
  inbound:
    - {port: any, proto: any, host: any}
`, dir, node, peerInner, peerOuter) + device
}
