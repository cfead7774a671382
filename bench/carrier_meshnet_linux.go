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

// The names of nodes.
const (
	nodeA = "node-a"
	nodeB = "node-b"
	nodeM = "node-m"
)

// startMeshnet runs two nodes with network interfaces: one founds a network, the other one joins it.
func startMeshnet(ctx context.Context, s *site) (*lane, error) {
	l, err := startNodes(ctx, s, nameMeshnet, s.mtuFlags()...)
	if err != nil {
		return l, err
	}
	status, err := s.status(ctx, l.b)
	if err != nil {
		return l, err
	}
	l.port = status.Self.Port
	return l, l.proven(ctx)
}

// startUserspace runs two nodes without interfaces. A program goes through its node's SOCKS5 proxy, and the other
// node passes the connection on to its own 127.0.0.1.
func startUserspace(ctx context.Context, s *site) (*lane, error) {
	l, err := startNodes(ctx, s, nameUserspace, append(s.mtuFlags(), "--userspace")...)
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
	_, err = l.a.host.Run(ctx, s.meshnet, "ping", nodeB, "--until-direct", "--state", l.a.dir)
	return l, err
}

// startNodes founds a network on a and lets b join.
func startNodes(ctx context.Context, s *site, name string, flags ...string) (*lane, error) {
	if err := s.buildMeshnet(ctx); err != nil {
		return nil, err
	}
	l := s.lane(name, 0)
	if err := s.startNode(ctx, l.a, append([]string{"--hostname", nodeA}, flags...)); err != nil {
		return l, err
	}
	return l, s.joinNode(ctx, l.b, l.a, append([]string{"--hostname", nodeB}, flags...))
}

// mtuFlags give a node the inner MTU that is measured.
func (s *site) mtuFlags() []string {
	if s.mtu == 0 {
		return nil
	}
	return []string{"--mtu", strconv.Itoa(s.mtu)}
}

// joinNode starts a node that joins the network of another one.
func (s *site) joinNode(ctx context.Context, x, to *side, flags []string) error {
	token, err := to.host.Run(ctx, s.meshnet, "invite", "--state", to.dir)
	if err != nil {
		return err
	}
	file := x.dir + ".token"
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return err
	}
	return s.startNode(ctx, x, append([]string{"--join", "@" + file}, flags...))
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

// nodeStatus is what is read of a node's status.
type nodeStatus struct {
	Self struct {
		Port   uint16 `json:"port"`
		Listen struct {
			SOCKS5 string `json:"socks5"`
		} `json:"listen"`
		Homes []string `json:"homes"`
	} `json:"self"`
	Peers []struct {
		Name string `json:"name"`
		Path struct {
			Kind string `json:"kind"`
		} `json:"path"`
	} `json:"peers"`
}

// status asks a node.
func (s *site) status(ctx context.Context, x *side) (*nodeStatus, error) {
	out, err := x.host.Run(ctx, s.meshnet, "status", "--json", "--state", x.dir)
	if err != nil {
		return nil, err
	}
	status := new(nodeStatus)
	if err := json.Unmarshal([]byte(out), status); err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	return status, nil
}

// path is the kind of the path from a node to another, as the node says; "" when it knows no such member.
func (n *nodeStatus) path(to string) string {
	for _, p := range n.Peers {
		if p.Name == to {
			return p.Path.Kind
		}
	}
	return ""
}

// proxyOf asks a node where its SOCKS5 proxy listens.
func (s *site) proxyOf(ctx context.Context, x *side) (string, error) {
	status, err := s.status(ctx, x)
	if err != nil {
		return "", err
	}
	if status.Self.Listen.SOCKS5 == "" {
		return "", errors.New("the node has no SOCKS5 proxy")
	}
	return status.Self.Listen.SOCKS5, nil
}
