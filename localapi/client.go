package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/meshnet/meshnet"
)

// Client talks to one node. Safe for concurrent use.
//
// Errors of the node are *Error; errors.Is finds the sentinels of package meshnet in them. Where nothing answers the
// error is ErrNoNode.
type Client struct {
	path string
	http *http.Client
}

// NewClient makes a client of the node at a socket. Nothing is dialled yet.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx, path) },
	}}
	return c
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status is a snapshot of the node.
func (c *Client) Status(ctx context.Context) (*meshnet.Status, error) {
	return call[*meshnet.Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Members lists the members.
func (c *Client) Members(ctx context.Context) ([]meshnet.MemberStatus, error) {
	return call[[]meshnet.MemberStatus](ctx, c, http.MethodGet, "/v1/members", nil)
}

// RevokeMember ends the membership of a name, address or id.
func (c *Client) RevokeMember(ctx context.Context, peer string) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/members/revoke", memberRevokeRequest{peer})
	return err
}

// Approve makes what a member offers count, or count no more; what is "relay".
func (c *Client) Approve(ctx context.Context, peer, what string, allow bool) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/members/approve", approveRequest{peer, what, allow})
	return err
}

// Invites lists the invites.
func (c *Client) Invites(ctx context.Context) ([]meshnet.InviteStatus, error) {
	return call[[]meshnet.InviteStatus](ctx, c, http.MethodGet, "/v1/invites", nil)
}

// Invite makes an invite.
func (c *Client) Invite(ctx context.Context, o meshnet.InviteOptions) (meshnet.Invitation, error) {
	return call[meshnet.Invitation](ctx, c, http.MethodPost, "/v1/invites",
		inviteRequest{Expires: duration(o.Expires), Uses: o.Uses, Tags: o.Tags})
}

// RevokeInvite ends the invite of an id, or of an unambiguous beginning of one.
func (c *Client) RevokeInvite(ctx context.Context, id string) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/invites/revoke", inviteRevokeRequest{id})
	return err
}

// WhoIs tells who owns an address.
func (c *Client) WhoIs(ctx context.Context, addr netip.Addr) (meshnet.WhoIs, error) {
	return call[meshnet.WhoIs](ctx, c, http.MethodGet, "/v1/whois?addr="+url.QueryEscape(addr.String()), nil)
}

// Lookup finds a node by name, address or id; "" is the node itself.
func (c *Client) Lookup(ctx context.Context, peer string) (meshnet.WhoIs, error) {
	return call[meshnet.WhoIs](ctx, c, http.MethodGet, "/v1/lookup?peer="+url.QueryEscape(peer), nil)
}

// Ping sends one echo of size bytes and waits for it.
func (c *Client) Ping(ctx context.Context, peer string, seq, size int, timeout time.Duration) (meshnet.PingResult, error) {
	return call[meshnet.PingResult](ctx, c, http.MethodPost, "/v1/ping",
		pingRequest{Peer: peer, Seq: seq, Size: size, Timeout: duration(timeout)})
}

// Netcheck has the node look at the networks around it; that takes a few seconds.
func (c *Client) Netcheck(ctx context.Context) (*meshnet.Netcheck, error) {
	return call[*meshnet.Netcheck](ctx, c, http.MethodPost, "/v1/netcheck", nil)
}

// Why explains the path to a name, address or id.
func (c *Client) Why(ctx context.Context, peer string) (*meshnet.Why, error) {
	return call[*meshnet.Why](ctx, c, http.MethodGet, "/v1/why?peer="+url.QueryEscape(peer), nil)
}

// Metrics are the node's counters and gauges in the Prometheus text format.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	body, err := c.open(ctx, http.MethodGet, "/v1/metrics", nil)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return "", fmt.Errorf("read the node's answer: %w", err)
	}
	return string(text), nil
}

// Key is the public half of the node's key.
func (c *Client) Key(ctx context.Context) (Key, error) {
	return call[Key](ctx, c, http.MethodGet, "/v1/key", nil)
}

// Down asks the node to stop, and returns when it is gone.
func (c *Client) Down(ctx context.Context) (Down, error) {
	var down Down
	body, err := c.open(ctx, http.MethodPost, "/v1/down", nil)
	if err != nil {
		return down, err
	}
	defer body.Close()
	// The answer ends when the node does. One that is cut off, as by a crash, says the same.
	if err := json.NewDecoder(body).Decode(&down); err == nil {
		_, _ = io.Copy(io.Discard, body)
	}
	return down, ctx.Err()
}

// Events hands each event to fn until fn fails, ctx is done or the node stops; the latter is no error.
func (c *Client) Events(ctx context.Context, fn func(meshnet.Event) error) error {
	body, err := c.open(ctx, http.MethodGet, "/v1/events", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	d := json.NewDecoder(body)
	d.UseNumber() // so that counts stay what they were
	for {
		var e meshnet.Event
		err := d.Decode(&e)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("%w any more: %w", ErrNoNode, err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

func call[T any](ctx context.Context, c *Client, verb, target string, request any) (T, error) {
	var reply T
	body, err := c.open(ctx, verb, target, request)
	if err != nil {
		return reply, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&reply); err != nil {
		return reply, fmt.Errorf("read the node's answer: %w", err)
	}
	_, _ = io.Copy(io.Discard, body) // so that the connection can be used again
	return reply, nil
}

// open sends a request and returns the body of an answer that is no error.
func (c *Client) open(ctx context.Context, verb, target string, request any) (io.ReadCloser, error) {
	var payload io.Reader
	if request != nil {
		data, err := json.Marshal(request)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, verb, "http://meshnet"+target, payload)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	var reply errorReply
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(&reply); err != nil || reply.Error == nil {
		return nil, fmt.Errorf("%w (%s)", ErrUnsupported, answer.Status)
	}
	return nil, reply.Error
}

// unreached explains why a request brought no answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("%w any more at %s", ErrNoNode, c.path)
	}
	return err
}

// connect dials a socket, or the one that a file in its place names.
func connect(ctx context.Context, path string) (net.Conn, error) {
	target, err := follow(path)
	if err == nil {
		var conn net.Conn
		if conn, err = dial(ctx, target); err == nil {
			return conn, nil
		}
	}
	if refused(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("%w at %s", ErrNoNode, path)
	}
	return nil, fmt.Errorf("connect to %s: %w", path, cause(err))
}
