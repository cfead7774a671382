package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/prom"
)

const (
	maxBody     = 64 << 10
	maxPing     = 65507 // bytes
	maxPingWait = time.Minute
	jsonType    = "application/json"
)

// method answers one request with a document.
type method func(r *http.Request) (any, error)

// handler is the table of what is served; the package comment has it for people.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	read := func(pattern string, m method) { mux.Handle(pattern, s.answer(m)) }
	change := func(pattern string, m method) { mux.Handle(pattern, s.guard(s.answer(m))) }

	read("GET /v1/status", func(*http.Request) (any, error) { return Document(s.node.Status()), nil })
	read("GET /v1/members", func(*http.Request) (any, error) { return Document(s.node.Members()), nil })
	read("GET /v1/invites", func(*http.Request) (any, error) { return Document(s.node.Invites()), nil })
	read("GET /v1/whois", s.whoIs)
	read("GET /v1/lookup", s.lookup)
	read("GET /v1/key", s.key)
	read("POST /v1/ping", s.ping)
	read("POST /v1/netcheck", s.netcheck)
	read("GET /v1/why", s.why)
	mux.Handle("GET /v1/metrics", prom.Handler(s.node.Metrics))
	mux.HandleFunc("GET /v1/events", s.events)

	change("POST /v1/invites", s.invite)
	change("POST /v1/invites/revoke", s.revokeInvite)
	change("POST /v1/members/revoke", s.revokeMember)
	change("POST /v1/members/approve", s.approve)
	mux.Handle("POST /v1/down", s.guard(http.HandlerFunc(s.down)))

	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { writeError(w, ErrUnsupported) })
	return mux
}

// guard lets only those through who may change the node.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !rulesFor(s.owner).mayChange(callerIn(r.Context())) {
			writeError(w, ErrNotPermitted)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) answer(m method) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply, err := m(r)
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", jsonType)
		_ = json.NewEncoder(w).Encode(reply) // fails only with the connection
	})
}

func writeError(w http.ResponseWriter, err error) {
	e, status := describe(err)
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(errorReply{e}) // fails only with the connection
}

// body reads a request whole; what does not belong there is refused.
func body[T any](r *http.Request) (T, error) {
	var v T
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, ErrRequest
	}
	return v, nil
}

func (s *Server) whoIs(r *http.Request) (any, error) {
	addr, err := netip.ParseAddr(r.FormValue("addr"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	who, err := s.node.WhoIs(addr)
	return Document(who), err
}

func (s *Server) lookup(r *http.Request) (any, error) {
	who, err := s.node.Lookup(r.FormValue("peer"))
	return Document(who), err
}

func (s *Server) key(*http.Request) (any, error) {
	id, public := s.node.KeyPublic()
	return Key{ID: id, Public: string(public)}, nil
}

func (s *Server) ping(r *http.Request) (any, error) {
	q, err := body[pingRequest](r)
	if err != nil {
		return nil, err
	}
	wait := time.Duration(q.Timeout)
	if q.Size < 0 || q.Size > maxPing || wait <= 0 || wait > maxPingWait {
		return nil, fmt.Errorf("%w: size up to %d, timeout up to %s", ErrRequest, maxPing, maxPingWait)
	}
	return Document(s.node.Ping(r.Context(), q.Peer, q.Seq, q.Size, wait)), nil
}

func (s *Server) netcheck(r *http.Request) (any, error) {
	check, err := s.node.Netcheck(r.Context())
	return Document(check), err
}

func (s *Server) why(r *http.Request) (any, error) {
	why, err := s.node.Why(r.FormValue("peer"))
	return Document(why), err
}

func (s *Server) invite(r *http.Request) (any, error) {
	q, err := body[inviteRequest](r)
	if err != nil {
		return nil, err
	}
	return s.node.Invite(r.Context(), meshnet.InviteOptions{
		Expires: time.Duration(q.Expires), Uses: q.Uses, Tags: q.Tags,
	})
}

func (s *Server) revokeInvite(r *http.Request) (any, error) {
	q, err := body[inviteRevokeRequest](r)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.node.RevokeInvite(r.Context(), q.ID)
}

func (s *Server) revokeMember(r *http.Request) (any, error) {
	q, err := body[memberRevokeRequest](r)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.node.RevokeMember(r.Context(), q.Peer)
}

func (s *Server) approve(r *http.Request) (any, error) {
	q, err := body[approveRequest](r)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.node.Approve(r.Context(), q.Peer, q.What, q.Allow)
}

// events streams until the client leaves or the node stops. The header is sent once the subscription stands, so what
// happens after it is seen.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	seq := s.node.Events(ctx)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	if flush() != nil {
		cancel() // the sequence still has to be run to its end: it holds the subscription
	}
	out := json.NewEncoder(w)
	for e := range seq {
		if out.Encode(Document(e)) != nil || flush() != nil {
			return
		}
	}
}

// down starts the end of the node and leaves the connection open: that it closes is the news.
func (s *Server) down(w http.ResponseWriter, _ *http.Request) {
	if s.config.Stop == nil {
		writeError(w, ErrUnsupported)
		return
	}
	s.running.Add(1) // a hijacked connection no longer counts
	defer s.running.Done()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeError(w, err)
		return
	}
	s.park(conn)
	_ = conn.SetDeadline(time.Time{})
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: "+jsonType+"\r\nConnection: close\r\n\r\n"+
		`{"pid":`+strconv.Itoa(os.Getpid())+"}\n")
	s.config.Stop()
}
