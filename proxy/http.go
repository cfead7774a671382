package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"
)

const maxHeader = 64 << 10

// HTTP is an HTTP proxy: CONNECT, and requests for http:// URLs in absolute form, upgrades (WebSocket) included.
// Immutable; one may serve several listeners.
type HTTP struct {
	config Config
}

// NewHTTP returns a proxy; it starts nothing.
func NewHTTP(c Config) *HTTP { return &HTTP{config: c} }

// Serve takes clients from l, which it closes, until ctx is done; then it closes their connections and returns nil
// after all of them ended. An error of l ends it too, and is returned.
func (h *HTTP) Serve(ctx context.Context, inner net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	l := newListener(inner, maxConns)
	handler := newHTTPHandler(ctx, h.config)
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: handshakeTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:         handler.state,
		ErrorLog:          slog.NewLogLogger(h.config.logger().Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, l.end)
	err := server.Serve(l)
	if ctx.Err() != nil {
		err = nil
	}
	stop()
	cancel()
	l.end() // CONNECT took its connections from the server
	server.Close()
	handler.conns.Wait()
	handler.transport.CloseIdleConnections()
	return err
}

// httpHandler serves one listener's requests.
type httpHandler struct {
	config    Config
	log       *slog.Logger
	transport *http.Transport
	forward   *httputil.ReverseProxy
	conns     sync.WaitGroup // connections that the server or a request still works on
}

// connKey finds a request's connection in its context.
type connKey struct{}

// state counts connections: the server tells of each that it is new, and at last either that it is closed or that a
// request took it over, whose end is then the connection's.
func (h *httpHandler) state(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		h.conns.Add(1)
	case http.StateClosed:
		h.conns.Done()
	case http.StateHijacked:
		c.(*conn).hijacked = true
	}
}

func newHTTPHandler(ctx context.Context, c Config) *httpHandler {
	h := &httpHandler{config: c, log: c.logger()}
	h.transport = &http.Transport{
		// The transport goes on dialling for later requests when the one that asked is gone, but not beyond Serve.
		DialContext: func(dialing context.Context, _, hostport string) (net.Conn, error) {
			dialing, cancel := context.WithCancel(dialing)
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			return c.dial(dialing, hostport)
		},
		MaxIdleConns:        maxConns,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // what passes through is the client's business
	}
	h.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Host = r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came, also what does not parse
		},
		Transport:     h.transport,
		FlushInterval: -1, // streams stay streams
		ErrorHandler:  h.refuse,
		ErrorLog:      slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	return h
}

// ServeHTTP handles one request of a client.
func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if r.Context().Value(connKey{}).(*conn).hijacked {
			h.conns.Done()
		}
	}()
	switch {
	case r.Method == http.MethodConnect:
		h.connect(w, r)
	case r.URL.Scheme == "http" && r.URL.Host != "":
		h.forward.ServeHTTP(w, r)
	default:
		http.Error(w, "this is a proxy: it takes CONNECT and requests for http:// URLs", http.StatusBadRequest)
	}
}

func (h *httpHandler) connect(w http.ResponseWriter, r *http.Request) {
	if !validTarget(r.Host) {
		http.Error(w, "CONNECT wants host:port", http.StatusBadRequest)
		return
	}
	target, err := h.config.dial(r.Context(), r.Host)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		target.Close()
		h.log.Debug("http connect failed", "endpoint", r.Host, "err", err)
		return
	}
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		target.Close()
		client.Close()
		return
	}
	Pipe(&bufferedConn{Conn: client, r: buffered.Reader}, target)
}

func validTarget(hostport string) bool {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n != 0
}

// refuse answers with what err means.
func (h *httpHandler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	h.log.Debug("http request failed", "endpoint", r.Host, "err", err)
	status := http.StatusBadGateway
	switch {
	case outcomeOf(err) == denied:
		status = http.StatusForbidden
	case timedOut(err):
		status = http.StatusGatewayTimeout
	}
	http.Error(w, http.StatusText(status)+": "+err.Error(), status)
}

// bufferedConn gives what the server had read ahead before anything else.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

// Read reads from the buffer first.
func (c *bufferedConn) Read(p []byte) (int, error) {
	if c.r.Buffered() == 0 {
		return c.Conn.Read(p)
	}
	return c.r.Read(p[:min(len(p), c.r.Buffered())])
}

// CloseWrite passes the half-close on.
func (c *bufferedConn) CloseWrite() error {
	if h, ok := c.Conn.(halfCloser); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}
