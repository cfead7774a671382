package relayserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/meshnet/meshnet/relay"
)

// DefaultAddr is where a Front listens unless it is told otherwise.
const DefaultAddr = ":9000"

// FrontConfig says where clients are let in, and how the server proves to them that it is the one. At most one of
// CertFile, ACME and SelfSigned counts, in that order; with none of them a self-signed certificate is made at each
// start, and the URL changes with it.
type FrontConfig struct {
	Logger *slog.Logger // nil discards

	Addr string // TCP, and UDP for STUN; host:port, default DefaultAddr. Port 0: any that is free
	// Public is what clients dial, as HOST or HOST:PORT, where that is not Addr. Empty: the certificate's name, or an
	// address of this host.
	Public string

	CertFile, KeyFile string     // PEM; read again when they change
	ACME              ACMEConfig // a certificate from an authority, renewed in time
	SelfSigned        string     // file that keeps a self-signed certificate and its key; made where it is missing
}

// Front listens, and hands relay streams to a Server: TLS 1.3, HTTP with the upgrade and with WebSocket, and STUN on the
// UDP port of the same number. Create it with Listen, then Run it.
type Front struct {
	cfg   FrontConfig
	log   *slog.Logger
	ln    net.Listener
	addr  netip.AddrPort
	certs *certificates
	stun  *stunServer
	gate  *gate
	url   relay.URL

	mu      sync.Mutex
	ending  bool
	serving sync.WaitGroup // streams; Add only while not ending
}

// Listen opens the sockets and loads or makes the certificate. Clients wait until Run. Without a free UDP port there is
// no STUN, which is logged.
func Listen(cfg FrontConfig) (*Front, error) {
	cfg.Addr = cmp.Or(cfg.Addr, DefaultAddr)
	f := &Front{cfg: cfg, log: cfg.Logger, gate: newGate()}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if f.certs, err = openCertificates(cfg, f.log); err != nil {
		return nil, err
	}
	if err := f.listen(); err != nil {
		return nil, err
	}
	if f.url, err = f.findURL(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// listen opens TCP, and UDP beside it. Where any port will do it looks for one that is free in both.
func (f *Front) listen() error {
	const tries = 10
	lc := net.ListenConfig{KeepAlive: -1} // the protocol has its own
	for try := 1; ; try++ {
		ln, err := lc.Listen(context.Background(), "tcp", f.cfg.Addr)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		f.ln, f.addr = ln, ln.Addr().(*net.TCPAddr).AddrPort()
		if f.stun, err = listenSTUN(f.addr); err == nil {
			return nil
		}
		_, port, _ := net.SplitHostPort(f.cfg.Addr)
		if port != "0" || try == tries {
			f.log.Warn("no STUN", "err", err)
			return nil
		}
		ln.Close()
	}
}

// URL is what clients dial: with the pin when the certificate signs itself.
func (f *Front) URL() relay.URL { return f.url }

// Addr is where TCP is listened on.
func (f *Front) Addr() netip.AddrPort { return f.addr }

// STUNPort is the UDP port of the STUN responder, for Config.STUNPort; 0: there is none.
func (f *Front) STUNPort() uint16 { return f.stun.port }

// Counters are totals since Listen, by name.
func (f *Front) Counters() map[string]uint64 {
	f.gate.mu.Lock()
	waiting, pushed := f.gate.n, f.gate.pushed
	f.gate.mu.Unlock()
	return map[string]uint64{
		"waiting":          uint64(waiting), // now: connections that are no streams yet
		"drop_pushed_out":  pushed,          // of these, when there were too many
		"stun_answered":    f.stun.answered.Load(),
		"drop_stun_rate":   f.stun.limited.Load(), // of one prefix, too often
		"drop_stun_format": f.stun.ignored.Load(), // no binding request
	}
}

// Close closes the sockets of a Front that was not Run.
func (f *Front) Close() error {
	closeSockets(f.stun.sockets)
	return f.ln.Close()
}

// Run lets clients in until ctx ends. Then nobody is let in any more, the server is closed, which tells its clients
// that it restarts, and Run returns nil when all is over.
func (f *Front) Run(ctx context.Context, server *Server) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	streams, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	web := f.webServer(streams, server)
	wg.Go(func() { f.stun.run(streams) })
	wg.Go(func() { f.certs.run(streams) })
	defer context.AfterFunc(ctx, func() { web.Close() })()

	ln := &acceptor{Listener: f.ln, gate: f.gate, log: f.log, done: ctx.Done()}
	err := web.Serve(tls.NewListener(ln, f.tlsConfig()))
	web.Close()
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	f.gate.closeAll()
	server.Close()
	cancel()
	f.serving.Wait()
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("accept clients: %w", err)
}

func (f *Front) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             f.certs.protocols,
		GetCertificate:         f.certs.get,
		SessionTicketsDisabled: true, // clients do not resume
		// Whole records from the start: what is written is many frames at once.
		DynamicRecordSizingDisabled: true,
	}
}

// serve has the server serve a stream, beside the caller: a goroutine of its own has a small stack, which matters as
// there is one for each client.
func (f *Front) serve(ctx context.Context, server *Server, stream relay.Stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		stream.Close()
		return
	}
	f.serving.Go(func() {
		began := time.Now()
		if err := server.ServeConn(ctx, stream); err != nil {
			f.log.Debug("client left", "endpoint", stream.RemoteAddr(), "err", err, "took", time.Since(began))
		}
	})
}
