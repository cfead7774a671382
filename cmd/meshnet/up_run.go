package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lmittmann/tint"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

const (
	patience   = 3 * time.Second // before `up` says that it still waits to be let in
	lastEvents = time.Second     // for the events of the end to be printed
)

// started is a node and how to serve it.
type started struct {
	life
	server func(localapi.Config) *localapi.Server
}

// life is what `up` needs of a node. *meshnet.Node has it.
type life interface {
	Status() *meshnet.Status
	Events(ctx context.Context) iter.Seq[meshnet.Event]
	Exposed() string
	ending
}

type ending interface {
	Close() error
	Done() <-chan struct{}
	Err() error
}

func start(ctx context.Context, cfg meshnet.Config) (*started, error) {
	n, err := meshnet.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &started{n, func(c localapi.Config) *localapi.Server { return localapi.NewServer(n, c) }}, nil
}

// gcPercent has the collector run when the heap has grown by half: a node's packets make no garbage, so it costs next to
// nothing, and a large network's facts take a quarter less memory.
const gcPercent = 50

// foreground runs a node from start to end:
//
//	Start ─▶ sockets ─▶ ready line, sd_notify ─▶ signal | down | the node's own end ─▶ Close ─▶ sockets gone
func (a *app) foreground(cfg meshnet.Config, ready *readyPipe, events bool) error {
	debug.SetGCPercent(gcPercent)
	defer a.host.outlive()()
	ctx, release := a.interruptible()
	defer release()
	n, err := a.begin(ctx, cfg)
	if err != nil {
		if interrupted(ctx, err) {
			return nil
		}
		return failedStart(err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := n.server(a.serverConfig(cfg, stop))
	if err := server.Listen(ctx); err != nil {
		_ = n.Close()
		return failed("start", err)
	}

	eventsCtx, endEvents := context.WithCancel(context.Background())
	defer endEvents()
	serveCtx, endServing := context.WithCancel(context.Background())
	defer endServing()
	var printing, serving sync.WaitGroup
	if events {
		seq := n.Events(eventsCtx) // subscribed before ready
		printing.Go(func() { a.printEvents(n.Status().Self, seq) })
	}
	var serveErr error
	serving.Go(func() {
		serveErr = server.Serve(serveCtx)
		stop()
	})
	a.announce(n, cfg, ready)

	var nodeErr error
	select {
	case <-ctx.Done():
	case <-n.Done():
		nodeErr = n.Err()
	}
	a.notifyService("STOPPING=1")
	closeErr := n.Close()
	timer := time.AfterFunc(lastEvents, endEvents) // Close ends the stream
	printing.Wait()
	timer.Stop()
	endServing()
	serving.Wait()
	switch {
	case nodeErr != nil:
		return failed("the node stopped", nodeErr)
	case serveErr != nil:
		return failed("local API", serveErr)
	}
	return failed("stop", closeErr)
}

// failedStart names the start once: Start does so too.
func failedStart(err error) error {
	if strings.HasPrefix(err.Error(), "start: ") {
		return failed("", err)
	}
	return failed("start", err)
}

// begin starts the node. An interrupt ends the start; it is not what ends the node later, since Close does that with
// a goodbye.
func (a *app) begin(ctx context.Context, cfg meshnet.Config) (*started, error) {
	startCtx, cancel := context.WithCancel(context.Background())
	defer context.AfterFunc(ctx, cancel)()
	if cfg.Join != "" {
		slow := time.AfterFunc(patience, func() { a.note("waiting for a member of the network to let this node in…") })
		defer slow.Stop()
	}
	n, err := a.host.start(startCtx, cfg)
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return n, err
}

func (a *app) serverConfig(cfg meshnet.Config, stop func()) localapi.Config {
	c := localapi.Config{
		Sockets: []string{filepath.Join(cfg.Dir, localapi.SocketFile)},
		Stop:    stop,
		Logger:  cfg.Logger,
	}
	if a.global.socket != "" && a.global.socket != c.Sockets[0] {
		c.Sockets = append(c.Sockets, a.global.socket)
	}
	if a.host.root && a.host.system != c.Sockets[0] && a.host.system != a.global.socket {
		c.System = a.host.system
	}
	return c
}

// announce tells people, the service manager and whoever waits on the ready descriptor.
func (a *app) announce(n life, cfg meshnet.Config, ready *readyPipe) {
	s := n.Status()
	a.note("%s is up in network %s", text(s.Self.Name), text(s.Network.Name))
	a.note("addresses: %s", list(s.Self.IPs))
	a.note("mode: %s", mode(s.Self))
	if s.Self.Mode != "tun" && cfg.TUN == meshnet.TUNTry {
		a.note("no network interface could be made, so this is userspace mode; run it with sudo for an interface")
	}
	if s.Self.Listen.Relay != nil {
		a.note("relay server on %s", text(s.Self.Listen.Relay))
	}
	if exposed := n.Exposed(); exposed != "" {
		a.note("%s", oneLine(exposed))
	}
	a.warnUnmeetable(s.Health) // where it turns out later, the node logs it
	if slices.Contains(s.Self.Roles, "admin") {
		a.note("invite others with: meshnet invite")
	}
	line := readyLine(s.Self)
	a.note("%s", line)
	ready.tell(line)
	a.notifyService("READY=1")
}

// readyLine is the one line that scripts wait for.
func readyLine(self meshnet.SelfStatus) string {
	v4, v6 := "-", "-"
	for _, ip := range self.IPs {
		switch {
		case ip.Is4() && v4 == "-":
			v4 = ip.String()
		case ip.Is6() && v6 == "-":
			v6 = ip.String()
		}
	}
	how := "userspace"
	if self.Mode == "tun" {
		how = "tun " + text(self.Interface)
	}
	return fmt.Sprintf("ready: %s %s %s (%s)", text(self.Name), v4, v6, how)
}

// mode is how programs of this machine reach the network.
func mode(self meshnet.SelfStatus) string {
	var parts []string
	if self.Mode == "tun" {
		parts = append(parts, "network interface "+text(self.Interface))
	} else {
		parts = append(parts, "userspace")
	}
	for _, p := range []struct {
		name string
		addr *string
	}{{"SOCKS5", self.Listen.SOCKS5}, {"HTTP proxy", self.Listen.HTTPProxy}} {
		if p.addr != nil {
			parts = append(parts, p.name+" "+*p.addr)
		}
	}
	return strings.Join(parts, ", ")
}

// printEvents prints until the stream ends. Without a reader the node goes on without it. That the node is ready was
// an event before anybody could listen, so it is told here.
func (a *app) printEvents(self meshnet.SelfStatus, seq iter.Seq[meshnet.Event]) {
	out := json.NewEncoder(a.stdout)
	ready := meshnet.Event{Time: time.Now(), Type: meshnet.EventNodeReady, Peer: &self.ID, Name: self.Name}
	err := out.Encode(localapi.Document(ready))
	for e := range seq {
		if err == nil && e.Type != meshnet.EventNodeReady {
			err = out.Encode(localapi.Document(e))
		}
		if err != nil {
			return
		}
	}
}

// logger logs to stderr.
func (a *app) logger() *slog.Logger {
	level := slog.LevelInfo
	if a.global.verbose {
		level = slog.LevelDebug
	}
	switch {
	case a.global.logFormat == "json":
		return slog.New(slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: level}))
	case isTerminal(a.stderr):
		return slog.New(tint.NewTextHandler(a.stderr, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !a.colours(a.stderr)}))
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level}))
}
