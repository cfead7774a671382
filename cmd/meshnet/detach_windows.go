package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/windows"
)

// background frees a child from our console and gives it the ready pipe, whose handle it returns.
func background(child *exec.Cmd, ready *os.File) (string, error) {
	h := windows.Handle(ready.Fd())
	if err := windows.SetHandleInformation(h, windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT); err != nil {
		return "", os.NewSyscallError("inherit the ready pipe", err)
	}
	child.SysProcAttr = &syscall.SysProcAttr{
		CreationFlags:              windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP,
		AdditionalInheritedHandles: []syscall.Handle{syscall.Handle(h)},
	}
	return strconv.FormatUint(uint64(h), 10), nil
}

// terminate ends a process: it has no console through which it could be asked.
func terminate(p *os.Process) { _ = p.Kill() }

// keepToOurselves keeps a handle that we got from those whom we start.
func keepToOurselves(f *os.File) {
	_ = windows.SetHandleInformation(windows.Handle(f.Fd()), windows.HANDLE_FLAG_INHERIT, 0)
}
