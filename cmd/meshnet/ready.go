package main

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// readyPipe is where the ready line goes besides stderr. The zero value is nowhere. Owned by one goroutine.
type readyPipe struct{ file *os.File }

// openReady takes over a file descriptor (on Windows a handle) that was handed to this process.
func openReady(fd int) (*readyPipe, error) {
	if fd == noReadyFD {
		return &readyPipe{}, nil
	}
	if fd < 1 {
		return nil, fmt.Errorf("%d is no descriptor to write to", fd)
	}
	f := os.NewFile(uintptr(fd), "ready-fd")
	if f == nil {
		return nil, fmt.Errorf("%d is not open", fd)
	}
	if _, err := f.Stat(); err != nil {
		return nil, fmt.Errorf("%d is not open", fd)
	}
	keepToOurselves(f)
	return &readyPipe{f}, nil
}

// tell writes the line and closes. A reader that has gone is no reason to fail.
func (r *readyPipe) tell(line string) {
	if r.file != nil {
		_, _ = r.file.WriteString(line + "\n")
		r.close()
	}
}

func (r *readyPipe) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

// notifyService tells the service manager how it goes (sd_notify(3)), if one asked for it.
func (a *app) notifyService(state string) {
	path := a.host.getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if err := notify(path, state); err != nil {
		a.note("the service manager could not be told %s: %v", state, err)
	}
}

func notify(path, state string) error {
	if path[0] != '/' && path[0] != '@' { // @: the abstract namespace, which package net knows by the same sign
		return errors.New("an address of an unknown kind")
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
