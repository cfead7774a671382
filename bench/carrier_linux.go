package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// carrier is a way to carry packets that can be measured.
type carrier struct {
	name  string
	needs []string // programs that must be in PATH
	start func(ctx context.Context, s *site) (*lane, error)
}

// carriers are all, in the order of the tables.
func carriers() []carrier {
	return []carrier{
		{name: nameVeth, start: startVeth},
		{name: namePlain, start: startPlain},
		{name: nameChacha, start: startPlainChacha},
		{name: nameWireGuard, start: startWireGuard},
		{name: nameMeshnet, start: startMeshnet},
		{name: nameUserspace, start: startUserspace},
		{name: nameRelay, start: startRelay},
		{name: nameMember, start: startMember},
		{name: nameNebula, needs: []string{"nebula", "nebula-cert"}, start: startNebula},
		{name: nameTinc, needs: []string{"tincd"}, start: startTinc},
	}
}

// absent says which program a carrier lacks, or nothing.
func (c carrier) absent() string {
	for _, program := range c.needs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Sprintf("%s: no %s in PATH", c.name, program)
		}
	}
	return ""
}

// build builds a program of this module or of one that it requires.
func build(ctx context.Context, to, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, pkg)
	// Asked, not killed, so that it ends what it started and removes its files.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = startTime
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// startVeth is the cable alone: what the machine's kernel gives without a VPN.
func startVeth(ctx context.Context, s *site) (*lane, error) {
	l := s.lane(nameVeth, s.mtu)
	return l, l.proven(ctx)
}
