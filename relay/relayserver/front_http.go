package relayserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/meshnet/meshnet/relay"
)

// maxHeader bounds the head of a request, in bytes.
const maxHeader = 8 << 10

// greeting is what a browser gets to see.
const greeting = "This is a meshnet relay. It carries ciphertext between the members of a mesh.\n"

type connKey struct{}

// webServer speaks HTTP with who was let in. A connection is a stream after its first request, or over.
func (f *Front) webServer(ctx context.Context, server *Server) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, greeting)
	})
	mux.HandleFunc("GET /generate_204", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET "+relay.Path, func(w http.ResponseWriter, r *http.Request) {
		if stream, ok := accept(w, r); ok {
			f.serve(ctx, server, stream)
		}
	})
	web := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: relay.HandshakeTime,
		WriteTimeout:      relay.HandshakeTime,
		MaxHeaderBytes:    maxHeader,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // no HTTP/2
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
	}
	web.SetKeepAlivesEnabled(false)
	return web
}

// accept answers a request for a stream. Where that is refused it says so to the client.
func accept(w http.ResponseWriter, r *http.Request) (relay.Stream, bool) {
	conn, ok := r.Context().Value(connKey{}).(*tls.Conn)
	if !ok {
		http.Error(w, "TLS is needed", http.StatusBadRequest)
		return relay.Stream{}, false
	}
	state := conn.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(relay.ExporterLabel, nil, relay.ExporterLen)
	if err != nil {
		http.Error(w, "TLS 1.3 is needed", http.StatusBadRequest)
		return relay.Stream{}, false
	}
	var carrier net.Conn
	switch protocol := r.Header.Get("Upgrade"); {
	case !asksToUpgrade(r):
		w.Header().Set("Upgrade", relay.Protocol)
		http.Error(w, "an upgrade to "+relay.Protocol+" is needed", http.StatusUpgradeRequired)
		return relay.Stream{}, false
	case strings.EqualFold(protocol, relay.Protocol):
		carrier, ok = hijack(w)
	default:
		carrier, ok = acceptWebSocket(w, r, conn)
	}
	if !ok {
		return relay.Stream{}, false
	}
	if e, waits := conn.NetConn().(*entrant); waits && !e.pass() {
		carrier.Close()
		return relay.Stream{}, false
	}
	carrier.SetDeadline(time.Time{})
	return relay.Stream{Conn: carrier, Exporter: exporter}, true
}

// asksToUpgrade reports whether the request asks for a protocol of ours, or for WebSocket.
func asksToUpgrade(r *http.Request) bool {
	for _, v := range r.Header.Values("Connection") {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				protocol := r.Header.Get("Upgrade")
				return strings.EqualFold(protocol, relay.Protocol) || strings.EqualFold(protocol, "websocket")
			}
		}
	}
	return false
}

// hijack switches protocols.
func hijack(w http.ResponseWriter) (net.Conn, bool) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil, false
	}
	const answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + relay.Protocol + "\r\n\r\n"
	if _, err := io.WriteString(conn, answer); err != nil {
		conn.Close()
		return nil, false
	}
	if n := buf.Reader.Buffered(); n > 0 { // a client that did not wait for the answer
		return &buffered{conn, buf.Reader}, true
	}
	return conn, true
}

// acceptWebSocket opens a WebSocket in the session. Pages of other sites are refused, as browsers send their origin.
func acceptWebSocket(w http.ResponseWriter, r *http.Request, under net.Conn) (net.Conn, bool) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:    []string{relay.Protocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, false // the client was told
	}
	if ws.Subprotocol() != relay.Protocol {
		ws.Close(websocket.StatusPolicyViolation, "the subprotocol is "+relay.Protocol)
		return nil, false
	}
	return relay.NewWebSocketConn(ws, under), true
}

// buffered is a connection of which a part was read ahead.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

// Read hands over that part first.
func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// NetConn is the connection under it.
func (b *buffered) NetConn() net.Conn { return b.Conn }
