//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"
)

// background gives a child a session of its own and the ready pipe, whose descriptor there it returns.
func background(child *exec.Cmd, ready *os.File) (string, error) {
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	child.ExtraFiles = []*os.File{ready}
	return "3", nil // the first after stdin, stdout and stderr
}

// terminate asks a process to end cleanly.
func terminate(p *os.Process) { _ = p.Signal(syscall.SIGTERM) }

// keepToOurselves keeps a descriptor that we got from those whom we start.
func keepToOurselves(f *os.File) { syscall.CloseOnExec(int(f.Fd())) }
