package localapi

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/meshnet/meshnet"
)

// stale leaves a socket at path on which nobody listens, as a killed node does.
func stale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(shortDir(t), SocketFile)
	stale(t, path)
	if _, err := client(t, path).Status(t.Context()); !errors.Is(err, ErrNoNode) {
		t.Fatalf("stale: %v", err)
	}
	s := serve(t, &fakeNode{}, Config{Sockets: []string{path}})
	if _, err := client(t, path).Status(t.Context()); err != nil {
		t.Error(err)
	}
	s.stop()
	<-s.done
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

func TestLiveSocketStays(t *testing.T) {
	live := serve(t, &fakeNode{}, Config{})
	second := NewServer(&fakeNode{}, Config{Sockets: []string{live.socket}})
	if err := second.Listen(t.Context()); !errors.Is(err, errLive) {
		t.Errorf("a live socket: %v", err)
	}
	// As the system socket it is no error; the second node goes without.
	other := filepath.Join(shortDir(t), SocketFile)
	s := serve(t, &fakeNode{}, Config{Sockets: []string{other}, System: live.socket})
	s.stop()
	<-s.done
	if _, err := client(t, live.socket).Status(t.Context()); err != nil {
		t.Errorf("the first node lost its socket: %v", err)
	}
}

func TestSystemSocket(t *testing.T) {
	system := filepath.Join(shortDir(t), "run", SocketFile)
	serve(t, &fakeNode{}, Config{System: system})
	if _, err := client(t, system).Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !tellsCredentials {
		return
	}
	for path, want := range map[string]os.FileMode{filepath.Dir(system): 0o755, system: 0o666} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
	}
}

func TestSystemSocketThatCannotBe(t *testing.T) {
	file := filepath.Join(shortDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, &fakeNode{}, Config{System: filepath.Join(file, SocketFile)})
	if _, err := client(t, s.socket).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLongPath(t *testing.T) {
	folder := filepath.Join(shortDir(t), strings.Repeat("long/", 30))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, SocketFile)
	s := serve(t, &fakeNode{}, Config{Sockets: []string{path}})
	if _, err := client(t, path).Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	named, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	target := strings.TrimSuffix(string(named), "\n")
	info, err := os.Stat(filepath.Dir(target))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("its folder has mode %v", info.Mode())
	}
	second := NewServer(&fakeNode{}, Config{Sockets: []string{path}})
	if err := second.Listen(t.Context()); !errors.Is(err, errLive) {
		t.Errorf("a live one was replaced: %v", err)
	}
	s.stop()
	<-s.done
	for _, left := range []string{path, target, filepath.Dir(target)} {
		if _, err := os.Lstat(left); !os.IsNotExist(err) {
			t.Errorf("%s was left behind: %v", left, err)
		}
	}
}

func TestLongPathStale(t *testing.T) {
	folder := filepath.Join(shortDir(t), strings.Repeat("long/", 30))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	private, err := os.MkdirTemp("", privatePattern)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(private)
	stale(t, filepath.Join(private, SocketFile))
	path := filepath.Join(folder, SocketFile)
	if err := os.WriteFile(path, []byte(filepath.Join(private, SocketFile)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, &fakeNode{}, Config{Sockets: []string{path}})
	if _, err := client(t, path).Status(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(private); !os.IsNotExist(err) {
		t.Errorf("the killed node's folder was left: %v", err)
	}
}

// What is not ours is not removed.
func TestForeignFileStays(t *testing.T) {
	path := filepath.Join(shortDir(t), SocketFile)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewServer(&fakeNode{}, Config{Sockets: []string{path}}).Listen(t.Context()); err == nil {
		t.Error("a file was taken for a socket")
	}
	if data, _ := os.ReadFile(path); string(data) != "precious" {
		t.Errorf("it now holds %q", data)
	}
}

// A node that ends leaves the socket alone that another one has put in its place.
func TestSuccessorKeepsItsSocket(t *testing.T) {
	s := serve(t, &fakeNode{}, Config{})
	if err := os.Remove(s.socket); err != nil {
		t.Fatal(err)
	}
	serve(t, &fakeNode{}, Config{Sockets: []string{s.socket}})
	s.stop()
	<-s.done
	if _, err := client(t, s.socket).Status(t.Context()); err != nil {
		t.Errorf("the successor lost its socket: %v", err)
	}
}

func TestLocate(t *testing.T) {
	live := serve(t, &fakeNode{}, Config{}).socket
	dir := shortDir(t)
	dead, missing := filepath.Join(dir, "dead"), filepath.Join(dir, "missing")
	stale(t, dead)
	notDir := filepath.Join(dead, "below")
	for _, tt := range []struct {
		name  string
		paths []string
		want  string // "": ErrNoNode
	}{
		{"first", []string{live, missing}, live},
		{"after a stale one", []string{dead, live}, live},
		{"after a missing one", []string{missing, notDir, live}, live},
		{"none", []string{missing, dead}, ""},
		{"no path", nil, ""},
	} {
		c, err := Locate(t.Context(), tt.paths...)
		switch {
		case tt.want == "" && !errors.Is(err, ErrNoNode):
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err != nil || c.path != tt.want):
			t.Errorf("%s: %v, %v", tt.name, c, err)
		}
	}
}

var _ node = (*meshnet.Node)(nil)
