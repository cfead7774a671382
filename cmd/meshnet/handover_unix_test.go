//go:build unix

package main

import (
	"os"
	"strconv"
	"syscall"
	"testing"
)

// handOver gives away a file as an inherited descriptor is.
func handOver(t *testing.T, f *os.File) string {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return strconv.Itoa(fd)
}
