package main

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/windows"
)

// handOver gives away a file as an inherited handle is.
func handOver(t *testing.T, f *os.File) string {
	t.Helper()
	self := windows.CurrentProcess()
	var h windows.Handle
	err := windows.DuplicateHandle(self, windows.Handle(f.Fd()), self, &h, 0, false, windows.DUPLICATE_SAME_ACCESS)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return strconv.FormatUint(uint64(h), 10)
}
