package localapi

import (
	"context"
	"net"
	"path/filepath"
	"testing"
)

// withStranger is a context of somebody without rights.
func withStranger(ctx context.Context) context.Context {
	return context.WithValue(ctx, callerKey{}, caller{known: true, uid: 4711, groups: []uint32{4711}})
}

// ask connects to a socket and tells who the other end sees.
func ask(t *testing.T, got chan<- caller) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	got <- callerIn(withCaller(t.Context(), in))
}
