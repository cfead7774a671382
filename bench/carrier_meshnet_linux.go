package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/meshnet/meshnet/internal/netlab"
)

const meshnetCommand = "github.com/meshnet/meshnet/cmd/meshnet"

// startMeshnet runs two nodes with network interfaces: one founds a network, the other one joins it.
func startMeshnet(ctx context.Context, s *site) (*lane, error) {
	var flags []string
	if s.mtu > 0 {
		flags = append(flags, "--mtu", strconv.Itoa(s.mtu))
	}
	l, err := startNodes(ctx, s, nameMeshnet, flags...)
	if err != nil {
		return l, err
	}
	return l, l.proven(ctx)
}

// startUserspace runs two nodes without interfaces. A program goes through its node's SOCKS5 proxy, and the other
// node passes the connection on to its own 127.0.0.1.
func startUserspace(ctx context.Context, s *site) (*lane, error) {
	flags := []string{"--userspace"}
	if s.mtu > 0 {
		flags = append(flags, "--mtu", strconv.Itoa(s.mtu))
	}
	l, err := startNodes(ctx, s, nameUserspace, flags...)
	if err != nil {
		return l, err
	}
	l.tcpOnly = true
	for _, x := range []*side{l.a, l.b} {
		x.listen = netip.MustParseAddr("127.0.0.1")
		if x.socks, err = s.proxyOf(ctx, x); err != nil {
			return l, err
		}
	}
	_, err = l.a.host.Run(ctx, s.meshnet, "ping", "node-b", "--until-direct", "--state", l.a.dir)
	return l, err
}

// startNodes founds a network on a and lets b join.
func startNodes(ctx context.Context, s *site, name string, flags ...string) (*lane, error) {
	if err := s.buildMeshnet(ctx); err != nil {
		return nil, err
	}
	l := s.lane(name, 0)
	if err := s.startNode(ctx, l.a, append([]string{"--hostname", "node-a"}, flags...)); err != nil {
		return l, err
	}
	token, err := l.a.host.Run(ctx, s.meshnet, "invite", "--state", l.a.dir)
	if err != nil {
		return l, err
	}
	file := l.b.dir + ".token"
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return l, err
	}
	return l, s.startNode(ctx, l.b, append([]string{"--hostname", "node-b", "--join", "@" + file}, flags...))
}

// buildMeshnet builds the program under test unless it was given.
func (s *site) buildMeshnet(ctx context.Context) error {
	if s.meshnet != "" {
		return nil
	}
	bin := filepath.Join(s.dir, "meshnet")
	if err := build(ctx, bin, meshnetCommand); err != nil {
		return err
	}
	s.meshnet = bin
	return nil
}

// startNode returns when the node is ready, with the address from its ready line.
func (s *site) startNode(ctx context.Context, x *side, flags []string) (err error) {
	args := append([]string{"up", "--state", x.dir}, flags...)
	if x.daemon, err = x.host.Start(netlab.Proc{Path: s.meshnet, Args: args}); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	const ready = "ready: "
	if err := x.daemon.WaitOutput(wait, ready+"node"); err != nil {
		return fmt.Errorf("%w\n%s", err, x.daemon.Output())
	}
	x.inner, err = readyAddr(x.daemon.Output(), ready)
	x.listen = x.inner
	return err
}

// readyAddr reads the IPv4 address of a ready line: its second field.
func readyAddr(output, ready string) (netip.Addr, error) {
	_, line, _ := strings.Cut(output, ready)
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return netip.Addr{}, fmt.Errorf("no address in the ready line %q", line)
	}
	return netip.ParseAddr(fields[1])
}

// proxyOf asks a node where its SOCKS5 proxy listens.
func (s *site) proxyOf(ctx context.Context, x *side) (string, error) {
	out, err := x.host.Run(ctx, s.meshnet, "status", "--json", "--state", x.dir)
	if err != nil {
		return "", err
	}
	var status struct {
		Self struct {
			Listen struct {
				SOCKS5 string `json:"socks5"`
			} `json:"listen"`
		} `json:"self"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return "", fmt.Errorf("status: %w", err)
	}
	if status.Self.Listen.SOCKS5 == "" {
		return "", errors.New("the node has no SOCKS5 proxy")
	}
	return status.Self.Listen.SOCKS5, nil
}
