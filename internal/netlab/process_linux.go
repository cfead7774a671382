package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Grace is how long a program may take to end after it was asked to.
const Grace = 10 * time.Second

// Proc is a program to start.
type Proc struct {
	Path   string // looked up in PATH when it has no slash
	Args   []string
	Env    []string // added to the test's environment
	Dir    string   // default: the test's
	Stdin  io.Reader
	Stdout io.Writer // gets a copy; all output is kept anyway
	Stderr io.Writer
}

// Process is a program that was started on a host. All methods may be called from any goroutine.
type Process struct {
	host *Host
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed when it has ended
	err  error         // how it ended; set before done is closed
}

// Start starts a program on the host, with the files of Inside. It ends with the test at the latest, and what it
// started (in its process group) ends with it. It is killed when the test's own process dies, however that happens.
func (h *Host) Start(cfg Proc) (*Process, error) {
	p := &Process{host: h, done: make(chan struct{})}
	cmd := exec.Command(cfg.Path, cfg.Args...)
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.Dir = cfg.Dir
	if cmd.Dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		cmd.Dir = wd // entering the mounts moves the thread to /
	}
	cmd.Stdin = cfg.Stdin
	cmd.Stdout = tee(&p.out, cfg.Stdout)
	cmd.Stderr = tee(&p.out, cfg.Stderr)
	// Its own group, so that an interrupt typed at a terminal reaches the test alone, which then takes it down.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // grandchildren may hold its output open
	p.cmd = cmd
	return p, h.run(p)
}

// run starts the program and waits for it on one thread: the death signal comes when the thread that started it
// ends, not the process.
func (h *Host) run(p *Process) error {
	started := make(chan error, 1)
	h.spawn(func(err error) {
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			p.killRest()
			p.err = p.cmd.Wait()
		}
		close(p.done)
	})
	if err := <-started; err != nil {
		return fmt.Errorf("start %s on %s: %w", p.cmd.Path, h.name, err)
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	h.lab.procs = append(h.lab.procs, p)
	return nil
}

// killRest waits for the program's end and kills what it started and left, before Wait gives its process id, which
// is also that of the group, back to the system.
func (p *Process) killRest() {
	var err error
	for {
		err = unix.Waitid(unix.P_PID, p.Pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		// Always succeeds: the program itself is still a member, if a dead one.
		_ = unix.Kill(-p.Pid(), unix.SIGKILL)
	}
}

// Run starts a program on the host, waits for it and returns what it wrote to its standard output. When ctx ends
// first it is killed. The error of a program that failed holds its whole output.
func (h *Host) Run(ctx context.Context, path string, args ...string) (string, error) {
	var stdout bytes.Buffer
	p, err := h.Start(Proc{Path: path, Args: args, Stdout: &stdout})
	if err != nil {
		return "", err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return stdout.String(), fmt.Errorf("%s %s: %w; output:\n%s", path, strings.Join(args, " "), ctx.Err(), p.Output())
	}
	if p.err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w; output:\n%s", path, strings.Join(args, " "), p.err, p.Output())
	}
	return stdout.String(), nil
}

// Pid is its process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns when it has ended: nil for exit status 0, otherwise an *exec.ExitError.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Stop asks it to end (SIGTERM) and waits. A program that is still there after Grace is killed, and that is an
// error; so is an exit status other than 0. One that dies of the signal did as it was asked.
func (p *Process) Stop() error { return p.end(syscall.SIGTERM) }

func (p *Process) end(sig syscall.Signal) error {
	p.Signal(sig)
	p.Resume()
	select {
	case <-p.done:
	case <-time.After(Grace):
		p.Kill()
		return fmt.Errorf("%s (%d) did not end within %v of %v", p.name(), p.Pid(), Grace, sig)
	}
	if exit, ok := errors.AsType[*exec.ExitError](p.err); ok {
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() && ws.Signal() == sig {
			return nil
		}
	}
	return p.err
}

// Kill ends it at once (SIGKILL) and waits.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Pause stops it from running, with all its sockets open (SIGSTOP), until Resume or its end.
func (p *Process) Pause() { p.Signal(unix.SIGSTOP) }

// Resume lets it run again after Pause.
func (p *Process) Resume() { p.Signal(unix.SIGCONT) }

// Signal sends it a signal. It does nothing when the program has ended.
func (p *Process) Signal(sig os.Signal) {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.host.lab.t.Errorf("netlab: signal %s (%d): %v", p.name(), p.Pid(), err)
	}
}

// Output is all that it wrote so far, both streams in the order in which they came.
func (p *Process) Output() string { return p.out.String() }

// WaitOutput returns when its output contains text; with an error when it ends without, or ctx does.
func (p *Process) WaitOutput(ctx context.Context, text string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(p.Output(), text) {
		select {
		case <-tick.C:
		case <-p.done:
			if strings.Contains(p.Output(), text) {
				return nil
			}
			return fmt.Errorf("%s ended (%v) without printing %q", p.name(), p.err, text)
		case <-ctx.Done():
			return fmt.Errorf("%s did not print %q: %w", p.name(), text, ctx.Err())
		}
	}
	return nil
}

func (p *Process) name() string { return filepath.Base(p.cmd.Path) + " on " + p.host.name }

// endAll interrupts programs, all at once so that they end in parallel, and kills what stays.
func endAll(procs []*Process) {
	for _, p := range procs {
		p.Signal(os.Interrupt)
		p.Resume()
	}
	grace, cancel := context.WithTimeout(context.Background(), Grace)
	defer cancel()
	for _, p := range procs {
		select {
		case <-p.done:
		case <-grace.Done():
			p.Kill() // does nothing to one that has ended meanwhile
		}
	}
}

// report shows the end of its output, and keeps all of it where the test's artifacts go.
func (p *Process) report(t T) {
	const shown = 8 << 10
	out := p.Output()
	file := filepath.Join(t.ArtifactDir(), fmt.Sprintf("%s-%s-%d.log", p.host.name, filepath.Base(p.cmd.Path), p.Pid()))
	if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
		t.Logf("keep output: %v", err)
	}
	if len(out) > shown {
		out = "…" + out[len(out)-shown:]
	}
	t.Logf("%s (%d) %s, ended with %v:\n%s", p.name(), p.Pid(), p.cmd.Args[1:], p.err, out)
}

// output collects what a program writes. Guarded by mu.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func tee(kept, also io.Writer) io.Writer {
	if also == nil {
		return kept
	}
	return io.MultiWriter(kept, also)
}
