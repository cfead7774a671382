package localapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/meshnet/meshnet/internal/safefile"
)

// SocketFile is the name of the socket in a state folder.
const SocketFile = "meshnet.sock"

const (
	privatePattern = "meshnet-*" // of the short folder that stands in for a path too long
	maxPointer     = 4096        // bytes of the file that names a socket elsewhere
	dialTimeout    = 5 * time.Second
)

// errLive: another node answers on the socket.
var errLive = errors.New("another node answers there")

// socket is one that we serve. Owned by the Server.
type socket struct {
	path     string // as asked for
	listener *net.UnixListener
	made     []madeFile // by us, in the order of removal
	folder   string     // private folder, "" where the path was short enough
}

type madeFile struct {
	path string
	info fs.FileInfo
}

// longestPath is how long a socket's path may be: sun_path without its final zero.
func longestPath() int {
	switch runtime.GOOS {
	case "linux", "windows":
		return 107
	}
	return 103
}

// socketMode is who may connect. What a caller may do is decided by its credentials, where there are any.
func socketMode() fs.FileMode {
	if tellsCredentials {
		return 0o666
	}
	return 0o600
}

// listen serves path. A socket that nobody answers on is replaced.
func listen(ctx context.Context, path string) (*socket, error) {
	if err := clearStale(ctx, path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	s := &socket{path: path}
	if err := s.open(); err != nil {
		s.close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return s, nil
}

func (s *socket) open() error {
	if len(s.path) <= longestPath() {
		return s.bind(s.path)
	}
	folder, err := privateFolder()
	if err != nil {
		return err
	}
	s.folder = folder
	short := filepath.Join(folder, SocketFile)
	if err := s.bind(short); err != nil {
		return err
	}
	dir, err := safefile.Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	if err := dir.Write(filepath.Base(s.path), []byte(short+"\n")); err != nil {
		return err
	}
	return s.remember(s.path)
}

func (s *socket) bind(path string) error {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return cause(err)
	}
	ln.SetUnlinkOnClose(false) // close looks whether the file is still ours
	s.listener = ln
	if runtime.GOOS != "windows" { // the folder's permissions count there
		if err := os.Chmod(path, socketMode()); err != nil {
			return err
		}
	}
	return s.remember(path)
}

func (s *socket) remember(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	s.made = append([]madeFile{{path, info}}, s.made...)
	return nil
}

// close ends the listener and removes what was made, unless another node has put its own there meanwhile.
func (s *socket) close() {
	for _, f := range s.made {
		if now, err := os.Lstat(f.path); err == nil && os.SameFile(f.info, now) {
			_ = os.Remove(f.path)
		}
	}
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.folder != "" {
		_ = os.Remove(s.folder)
	}
}

// privateFolder makes a folder (0700) whose path leaves room for a socket.
func privateFolder() (string, error) {
	const room = len("/meshnet-1234567890/") + len(SocketFile)
	base := os.TempDir()
	if len(base)+room > longestPath() && runtime.GOOS != "windows" {
		base = "/tmp"
	}
	return os.MkdirTemp(base, privatePattern)
}

// clearStale removes what a node that was killed left at path. A live socket, and what is neither a socket nor names
// one, stays and is an error.
func clearStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return cause(err)
	case info.IsDir():
		return errors.New("a folder is in the way")
	}
	target, err := follow(path)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, target)
	switch {
	case err == nil:
		conn.Close()
		return errLive
	case !refused(err) && !errors.Is(err, fs.ErrNotExist):
		return cause(err)
	}
	if target != path && strings.HasPrefix(filepath.Base(filepath.Dir(target)), strings.TrimSuffix(privatePattern, "*")) {
		_ = os.Remove(target)
		_ = os.Remove(filepath.Dir(target)) // only if nothing else is in it
	}
	return os.Remove(path)
}

// follow is the socket that path is or names.
func follow(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return path, nil
	}
	if info.Size() > maxPointer {
		return "", errors.New("not a socket")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	target := strings.TrimSuffix(string(data), "\n")
	if !filepath.IsAbs(target) || strings.ContainsAny(target, "\n\x00") {
		return "", errors.New("not a socket")
	}
	return target, nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, "unix", path)
}

// cause is the system's reason within an error that names the path too, since the caller does.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		return call.Err
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
