package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

// host is what a run sees of the machine besides its streams.
type host struct {
	os         string // as runtime.GOOS
	root       bool   // the administrator
	getenv     func(string) string
	environ    []string
	system     string // the system socket
	executable func() (string, error)
	start      func(context.Context, meshnet.Config) (*started, error)
	signals    func() (<-chan os.Signal, func()) // those that end a program, and how to stop listening
	outlive    func() func()                     // keeps the process when its terminal or reader goes away, and back
	abort      func(code int)                    // ends the process at once
}

func thisHost() host {
	return host{
		os:         runtime.GOOS,
		root:       privileged(),
		getenv:     os.Getenv,
		environ:    os.Environ(),
		system:     systemSocket(runtime.GOOS, os.Getenv),
		executable: os.Executable,
		start:      start,
		signals:    listenForEnd,
		outlive:    outlive,
		abort:      os.Exit,
	}
}

func listenForEnd() (<-chan os.Signal, func()) {
	end := make(chan os.Signal, 2)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	return end, func() { signal.Stop(end) }
}

// outlive takes over SIGHUP and SIGPIPE, which would end a node without putting back what it changed.
func outlive() func() {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGHUP, syscall.SIGPIPE)
	return func() { signal.Stop(ignored) }
}

var errNoHome = errors.New("there is no home folder to keep the state in")

// stateFolder is where a node keeps its state unless told otherwise.
func stateFolder(h host) (string, error) {
	home := h.getenv("HOME")
	switch {
	case h.os == "windows" && h.root:
		return under(h.getenv("ProgramData"), "meshnet")
	case h.os == "windows":
		return under(h.getenv("LocalAppData"), "meshnet")
	case h.os == "darwin" && h.root:
		return "/Library/Application Support/meshnet", nil
	case h.root:
		return "/var/lib/meshnet", nil
	case filepath.IsAbs(h.getenv("XDG_STATE_HOME")):
		return under(h.getenv("XDG_STATE_HOME"), "meshnet")
	case h.os == "darwin":
		return under(home, "Library", "Application Support", "meshnet")
	}
	return under(home, ".local", "state", "meshnet")
}

// systemSocket is where programs of every user find the machine's node.
func systemSocket(goos string, getenv func(string) string) string {
	switch goos {
	case "windows":
		path, _ := under(getenv("ProgramData"), "meshnet", localapi.SocketFile)
		return path
	case "darwin":
		return "/var/run/meshnet/" + localapi.SocketFile
	}
	return "/run/meshnet/" + localapi.SocketFile
}

func under(base string, names ...string) (string, error) {
	if base == "" {
		return "", errNoHome
	}
	return filepath.Join(append([]string{base}, names...)...), nil
}
