package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
)

const wantReady = "ready: web 100.88.3.4 fd00::4 (userspace)\n"

// up runs `up` until the test ends it.
func (r *rig) up(args ...string) <-chan result {
	r.t.Helper()
	done := make(chan result, 1)
	go func() { done <- r.run(append([]string{"up"}, args...)...) }()
	poll(r.t, "a node that answers", func() bool { return r.run("ip", "--state", r.state()).code == exitDone })
	return done
}

func TestUp(t *testing.T) {
	r := newRig(t)
	done := r.up()
	r.want(r.run("down"), exitDone)
	// down comes back once the node does not serve any more; the rest of `up` is nothing that shows.
	if !r.node.isClosed() {
		t.Error("the node was not closed")
	}
	r.want(r.run("status"), exitNoNode)
	res := <-done
	r.want(res, exitDone)
	if res.stdout != "" || strings.Count(res.stderr, wantReady) != 1 {
		t.Errorf("got %+v", res)
	}
	for _, want := range []string{
		"web is up in network amber-falcon", "100.88.3.4 fd00::4", "meshnet invite", "members reach 127.0.0.1",
		"no network interface could be made",
	} {
		if !strings.Contains(res.stderr, want) {
			t.Errorf("%q is not in %q", want, res.stderr)
		}
	}
	if r.cfg.Dir != r.state() || r.cfg.Logger == nil {
		t.Errorf("started with %+v", r.cfg)
	}
}

func TestUpSignal(t *testing.T) {
	r := newRig(t)
	done := r.up("--json")
	r.signals <- syscall.SIGTERM
	res := <-done
	r.want(res, exitDone)
	lines := strings.Split(res.stdout, "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], `"type":"node_ready","peer":"SELF","name":"web","data":{}}`) ||
		!strings.HasPrefix(lines[1], `{"time":"0001-01-01T00:00:00Z","type":"peer_connected"`) {
		t.Errorf("events: %q", res.stdout)
	}
}

func TestUpSecondSignal(t *testing.T) {
	r := newRig(t)
	aborted := make(chan int, 1)
	r.host.abort = func(code int) { aborted <- code }
	hold := make(chan struct{})
	begin := r.host.start
	r.host.start = func(ctx context.Context, cfg meshnet.Config) (*started, error) {
		<-hold // deaf to the interrupt
		return begin(ctx, cfg)
	}
	done := make(chan result, 1)
	go func() { done <- r.run("up") }()
	r.signals <- os.Interrupt
	r.signals <- os.Interrupt
	if code := <-aborted; code != exitFailed {
		t.Errorf("aborted with %d", code)
	}
	close(hold)
	<-done
}

func TestUpInterruptedStart(t *testing.T) {
	r := newRig(t)
	r.host.start = func(ctx context.Context, _ meshnet.Config) (*started, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r.signals <- os.Interrupt
	r.want(r.run("up"), exitDone)
}

func TestUpFails(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		want string
	}{
		{fmt.Errorf("%w (pid 42)", meshnet.ErrInUse), exitFailed, "meshnet: start: already running (pid 42)\nhint: "},
		{fmt.Errorf("start: %w (pid 42)", meshnet.ErrInUse), exitFailed, "meshnet: start: already running (pid 42)\nhint: "},
		{meshnet.ErrInviteExpired, exitRefused, "meshnet: start: invite expired\nhint: ask for a new token"},
		{meshnet.ErrToken, exitFailed, "meshnet: start: bad token\nhint: "},
		{fmt.Errorf("open tun: %w", meshnet.ErrNoTUN), exitFailed, "meshnet: start: open tun: no TUN\nhint: run it with sudo"},
		{&meshnet.Hinted{Err: errors.New("odd"), Hint: "turn"}, exitFailed, "meshnet: start: odd\nhint: turn\n"},
	} {
		r := newRig(t)
		r.fail = tt.err
		res := r.run("up")
		r.want(res, tt.code)
		if !strings.HasPrefix(res.stderr, tt.want) {
			t.Errorf("stderr %q, want %q", res.stderr, tt.want)
		}
	}
}

func TestUpNodeEnds(t *testing.T) {
	for err, want := range map[error]int{nil: exitDone, meshnet.ErrRevoked: exitRefused, errors.New("odd"): exitFailed} {
		r := newRig(t)
		done := r.up()
		r.node.end(err)
		r.want(<-done, want)
	}
}

// A node of root is found by everybody; a second one goes without.
func TestUpSystemSocket(t *testing.T) {
	r := newRig(t)
	r.host.root = true
	first := r.up("--state", r.state())
	r.want(r.run("ip", "--socket", r.host.system), exitDone)

	second := newRig(t)
	second.host.root, second.host.system = true, r.host.system
	done := second.up("--state", second.state(), "--socket", filepath.Join(second.dir, "extra.sock"))
	r.want(second.run("ip", "--socket", filepath.Join(second.dir, "extra.sock")), exitDone)
	r.want(second.run("down", "--state", second.state()), exitDone)
	r.want(<-done, exitDone)

	r.want(r.run("down", "--socket", r.host.system), exitDone)
	r.want(<-first, exitDone)
}

func TestUpLongState(t *testing.T) {
	r := newRig(t)
	state := filepath.Join(r.dir, strings.Repeat("long/", 30))
	r.env["MESHNET_STATE"] = state
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	done := make(chan result, 1)
	go func() { done <- r.run("up") }()
	poll(t, "a node that answers", func() bool { return r.run("ip").code == exitDone })
	r.want(r.run("down"), exitDone)
	r.want(<-done, exitDone)
}

func TestReadyFD(t *testing.T) {
	r := newRig(t)
	if err := os.MkdirAll(r.state(), 0o700); err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	fd := handOver(t, theirs)
	done := r.up("--ready-fd", fd)
	line, err := io.ReadAll(ours) // to its end: it is closed while the node runs
	if err != nil || string(line) != wantReady {
		t.Errorf("got %q, %v", line, err)
	}
	r.signals <- os.Interrupt
	r.want(<-done, exitDone)
}

func TestNotify(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no service manager of this kind")
	}
	r := newRig(t)
	names := []string{filepath.Join(r.dir, "notify")}
	if runtime.GOOS == "linux" {
		names = append(names, "@"+strings.TrimPrefix(r.dir, "/"))
	}
	for _, name := range names {
		r.node, r.env["NOTIFY_SOCKET"] = newFake(), name
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		done := r.up()
		r.signals <- os.Interrupt
		r.want(<-done, exitDone)
		for _, want := range []string{"READY=1", "STOPPING=1"} {
			buf := make([]byte, 64)
			n, err := conn.Read(buf)
			if err != nil || string(buf[:n]) != want {
				t.Errorf("%s: %q, %v", name, buf[:n], err)
			}
		}
		conn.Close()
	}
}

// child makes the test binary the program that a detached run starts.
func (r *rig) child(mode string) {
	r.host.executable = os.Executable
	r.host.environ = append(os.Environ(), childMode+"="+mode, "MESHNET_JOIN=secret", "CHILD_DIR="+r.dir)
}

// runChild is a node that was started in the background: it writes down what it was given and does as it is told.
func runChild(mode string) int {
	token, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	seen := strings.Join(os.Args[1:], "\n") + "\nenv " + os.Getenv("MESHNET_JOIN") + "\ntoken " + token
	if err := os.WriteFile(filepath.Join(os.Getenv("CHILD_DIR"), "seen"), []byte(seen), 0o600); err != nil {
		return 99
	}
	fmt.Fprintln(os.Stderr, "some log")
	switch mode {
	case "ready":
		var fd int
		for _, arg := range os.Args[1:] {
			_, _ = fmt.Sscanf(arg, "--ready-fd=%d", &fd)
		}
		pipe, err := openReady(fd)
		if err != nil {
			return 98
		}
		pipe.tell(strings.TrimSuffix(wantReady, "\n"))
	case "refused":
		fmt.Fprint(os.Stderr, "meshnet: start: invite expired\nhint: ask for a new token\n")
		return exitRefused
	case "silent":
		return 7
	case "slow":
		time.Sleep(time.Minute)
	}
	return 0
}

func TestDetach(t *testing.T) {
	r := newRig(t)
	r.child("ready")
	r.stdin = "mesh1token\n"
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	res := r.run("up", "--detach", "--ready-fd", handOver(t, theirs), "--join", "-", "--port", "7", "--bootstrap", "a:1,b:2", "--userspace")
	r.want(res, exitDone)
	if res.stderr != wantReady || res.stdout != "" {
		t.Errorf("got %+v", res)
	}
	if line, err := io.ReadAll(ours); err != nil || string(line) != wantReady {
		t.Errorf("on the descriptor: %q, %v", line, err)
	}
	seen, err := os.ReadFile(filepath.Join(r.dir, "seen"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(seen), "\n")
	ready := lines[3]
	want := "up\n--state=" + r.state() + "\n--detach=false\n" + ready +
		"\n--join=-\n--bootstrap=a:1\n--bootstrap=b:2\n--port=7\n--userspace=true\nenv \ntoken mesh1token\n"
	if string(seen) != want || !strings.HasPrefix(ready, "--ready-fd=") {
		t.Errorf("the child saw %q, want %q", seen, want)
	}
	info, err := os.Stat(filepath.Join(r.state(), logFile))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the log has mode %v", info.Mode())
	}
}

// The child runs in the state folder: what names a file still names the same one there.
func TestChildArgs(t *testing.T) {
	a := &app{host: host{os: "linux"}, from: map[string]string{}}
	cmd := a.upCommand()
	if err := cmd.ParseFlags([]string{"--relay", "--relay-ca", "ca.pem", "--relay-tls-cert=", "--member-relay-rate", "1Gbit"}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(childArgs(cmd, meshnet.Config{Dir: "/s"}, "3"), " ")
	want := "up --state=/s --detach=false --ready-fd=3 --member-relay-rate=1Gbit --relay=true --relay-ca=" + filepath.Join(dir, "ca.pem") +
		" --relay-tls-cert="
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDetachFails(t *testing.T) {
	for _, tt := range []struct {
		mode, want string
		code       int
	}{
		{"refused", "meshnet: start: invite expired\nhint: ask for a new token\n", exitRefused},
		{"silent", "meshnet: start: exit status 7\nhint: see ", exitFailed},
		{"", "", exitFailed},
	} {
		r := newRig(t)
		if tt.mode != "" {
			r.child(tt.mode)
		}
		if err := os.MkdirAll(r.state(), 0o700); err != nil {
			t.Fatal(err)
		}
		old := []byte("meshnet: start: an error of last week\n")
		if err := os.WriteFile(filepath.Join(r.state(), logFile), old, 0o600); err != nil {
			t.Fatal(err)
		}
		res := r.run("up", "--detach")
		r.want(res, tt.code)
		if !strings.HasPrefix(res.stderr, tt.want) || strings.Contains(res.stderr, "last week") {
			t.Errorf("%s: stderr %q, want %q", tt.mode, res.stderr, tt.want)
		}
	}
}

func TestDetachInterrupted(t *testing.T) {
	r := newRig(t)
	r.child("slow")
	done := make(chan result, 1)
	go func() { done <- r.run("up", "--detach") }()
	poll(t, "a child", func() bool { _, err := os.Stat(filepath.Join(r.dir, "seen")); return err == nil })
	r.signals <- os.Interrupt
	r.want(<-done, exitFailed)
}

// The program itself: exit codes and streams as a shell sees them.
func TestProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	program := filepath.Join(t.TempDir(), "meshnet")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	state := t.TempDir()
	for args, want := range map[string]int{"version": 0, "frob": 2, "status --state " + state: 3, "key show --state " + state: 1} {
		err := exec.Command(program, strings.Fields(args)...).Run()
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		}
		if code != want {
			t.Errorf("%s: %d, want %d", args, code, want)
		}
	}
}

var _ life = (*meshnet.Node)(nil)
