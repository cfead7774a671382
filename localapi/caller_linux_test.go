package localapi

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const strangeUser, strangeGroup, extraGroup = 4713, 4712, 4711

// asStranger runs fn with other credentials: those of a thread that ends with it.
func asStranger(t *testing.T, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		groups := [1]uint32{extraGroup}
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups)), 0)
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, strangeGroup, strangeGroup, strangeGroup)
		}
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, strangeUser, strangeUser, strangeUser)
		}
		if errno != 0 {
			done <- errno
			return
		}
		fn()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Skipf("cannot become somebody else: %v", err)
	}
}

func TestCallerIsAStranger(t *testing.T) {
	path := filepath.Join(openDir(t), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	asStranger(t, func() {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close() })
	})
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c := callerOf(in.(*net.UnixConn))
	if !c.known || c.uid != strangeUser || !slices.Equal(c.groups, []uint32{strangeGroup, extraGroup}) {
		t.Errorf("got %+v", c)
	}
}

// Through the socket itself: somebody else may look and not touch.
func TestStrangerMayOnlyRead(t *testing.T) {
	path := filepath.Join(openDir(t), SocketFile)
	serve(t, &fakeNode{}, Config{Sockets: []string{path}, Stop: func() { t.Error("stopped") }})
	for request, want := range map[string]int{
		"GET /v1/status":          http.StatusOK,
		"POST /v1/down":           http.StatusForbidden,
		"POST /v1/members/revoke": http.StatusForbidden,
	} {
		asStranger(t, func() {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(request + " HTTP/1.1\r\nHost: meshnet\r\nConnection: close\r\n\r\n")); err != nil {
				t.Error(err)
				return
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Error(err)
				return
			}
			answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("%s: %s", request, answer.Status)
			}
		})
	}
}

// openDir is a folder that everybody may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
