package localapi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/prom"
)

// node is what is served. *meshnet.Node is one.
type node interface {
	viewer
	finder
	explainer
	changer
}

type viewer interface {
	Status() *meshnet.Status
	Members() []meshnet.MemberStatus
	Invites() []meshnet.InviteStatus
	Events(ctx context.Context) iter.Seq[meshnet.Event]
	KeyPublic() (id string, publicPEM []byte)
}

type finder interface {
	WhoIs(addr netip.Addr) (meshnet.WhoIs, error)
	Lookup(peer string) (meshnet.WhoIs, error)
	Ping(ctx context.Context, peer string, seq, size int, timeout time.Duration) meshnet.PingResult
}

type explainer interface {
	Netcheck(ctx context.Context) (*meshnet.Netcheck, error)
	Why(peer string) (*meshnet.Why, error)
	Metrics() []prom.Family
}

type changer interface {
	Invite(ctx context.Context, o meshnet.InviteOptions) (meshnet.Invitation, error)
	RevokeInvite(ctx context.Context, id string) error
	RevokeMember(ctx context.Context, peer string) error
	Approve(ctx context.Context, peer, what string, allow bool) error
}

const (
	headerTimeout   = 5 * time.Second
	idleTimeout     = time.Minute
	maxHeader       = 16 << 10
	shutdownTimeout = time.Second
)

// Config of a Server.
type Config struct {
	// Sockets are the paths to serve. One that cannot be had is an error.
	Sockets []string
	// System is the socket for the whole machine. "": none. It is left out with a warning when it cannot be had, or
	// when another node has it.
	System string
	// Stop begins the end of the node; it returns at once. nil: clients cannot stop it.
	Stop func()
	// Logger: nil discards.
	Logger *slog.Logger
}

// Server serves one node. Listen, then Serve, each once; Close instead of Serve when it is not to be served after all.
type Server struct {
	node    node
	config  Config
	log     *slog.Logger
	owner   uint32
	sockets []*socket
	running sync.WaitGroup // connections, and requests that outlive theirs

	mu     sync.Mutex
	parked []net.Conn // guarded by mu: of clients that wait for the end
}

// NewServer makes a server of n. It starts nothing.
func NewServer(n node, c Config) *Server {
	s := &Server{node: n, config: c, log: c.Logger, owner: uint32(max(os.Geteuid(), 0))}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Listen opens the sockets. After an error none is open.
func (s *Server) Listen(ctx context.Context) error {
	for _, path := range s.config.Sockets {
		sock, err := listen(ctx, path)
		if err != nil {
			s.Close()
			return err
		}
		s.sockets = append(s.sockets, sock)
	}
	if s.config.System == "" {
		return nil
	}
	sock, err := listenSystem(ctx, s.config.System)
	switch {
	case errors.Is(err, errLive):
		s.log.Info("another node serves the system socket", "socket", s.config.System)
	case err != nil:
		s.log.Warn("no system socket: other users do not find this node", "err", err)
	default:
		s.sockets = append(s.sockets, sock)
	}
	return nil
}

// Close closes the sockets.
func (s *Server) Close() {
	for _, sock := range s.sockets {
		sock.close()
	}
	s.sockets = nil
}

// Serve answers until ctx is done. It returns after every request has ended and the sockets are gone; clients that
// asked the node to go down are told last.
func (s *Server) Serve(ctx context.Context) error {
	defer s.release()
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withCaller,
		ConnState:         s.count,
	}
	failed := make(chan error, len(s.sockets))
	var accepting sync.WaitGroup
	for _, sock := range s.sockets {
		accepting.Go(func() { failed <- srv.Serve(sock.listener) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	}
	cancel()
	s.Close()
	s.shutdown(srv)
	accepting.Wait()
	s.running.Wait()
	return err
}

// count is http.Server.ConnState: it keeps a count of connections. New ones are counted by the accepting goroutine, so
// none comes once that has ended.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.running.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.running.Done()
	}
}

// shutdown lets requests end, and cuts off those whose client does not read.
func (s *Server) shutdown(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close()
	}
}

// park keeps a client's connection open until the end.
func (s *Server) park(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked = append(s.parked, conn)
}

func (s *Server) release() {
	s.mu.Lock()
	parked := s.parked
	s.parked = nil
	s.mu.Unlock()
	for _, conn := range parked {
		_ = conn.Close()
	}
}
