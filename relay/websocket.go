package relay

import (
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// dialWebSocket makes a TLS session and opens a WebSocket in it (RFC 6455): binary messages, in which frames lie as
// they would in the session itself, cut anywhere.
func (cfg DialConfig) dialWebSocket(ctx context.Context, u URL) (Stream, error) {
	conn, err := cfg.dialTLS(ctx, u)
	if err != nil {
		return Stream{}, err
	}
	transport := &http.Transport{
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		MaxResponseHeaderBytes: maxResponse,
	}
	ws, resp, err := websocket.Dial(ctx, u.base()+Path, &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Subprotocols:    []string{Protocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		conn.Close()
		return Stream{}, err
	}
	return newStream(conn, u, NewWebSocketConn(ws, conn))
}

// webSocketConn is the byte stream inside a WebSocket.
type webSocketConn struct {
	net.Conn // websocket.NetConn: a message for each Write
	ws       *websocket.Conn
	under    net.Conn
}

// NewWebSocketConn makes a byte stream of the binary messages of ws, which lies on the connection under. Close ends
// both at once. A deadline that passes ends them too.
func NewWebSocketConn(ws *websocket.Conn, under net.Conn) net.Conn {
	return &webSocketConn{websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws, under}
}

// Close does not wait for the other side.
func (c *webSocketConn) Close() error {
	return c.ws.CloseNow()
}

// LocalAddr is that of the connection under it.
func (c *webSocketConn) LocalAddr() net.Addr { return c.under.LocalAddr() }

// RemoteAddr is that of the connection under it.
func (c *webSocketConn) RemoteAddr() net.Addr { return c.under.RemoteAddr() }

// NetConn is the connection under it.
func (c *webSocketConn) NetConn() net.Conn { return c.under }
