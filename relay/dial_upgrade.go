package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// maxResponse bounds the head of a response to an upgrade or a CONNECT, in bytes.
const maxResponse = 64 << 10

// carrierError says that the server was found, but that what is between does not let an upgrade pass.
type carrierError struct{ err error }

func (e *carrierError) Error() string { return "the upgrade was refused: " + e.err.Error() }

func (e *carrierError) Unwrap() error { return e.err }

// upgrade asks for the relay protocol. It returns what the server sent behind its answer.
func upgrade(ctx context.Context, conn net.Conn, u URL) (rest []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, upgradeTimeout, errors.New("no answer in time"))
	defer cancel()
	request := "GET " + Path + " HTTP/1.1\r\nHost: " + strings.TrimPrefix(u.base(), "https://") +
		"\r\nConnection: Upgrade\r\nUpgrade: " + Protocol + "\r\n\r\n"
	var resp *http.Response
	err = during(ctx, conn, func() error {
		resp, rest, err = exchange(conn, http.MethodGet, request)
		return err
	})
	switch {
	case err != nil:
		return nil, &carrierError{err}
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, &carrierError{errors.New(resp.Status)}
	case !strings.EqualFold(resp.Header.Get("Upgrade"), Protocol):
		return nil, &carrierError{fmt.Errorf("to %q instead", resp.Header.Get("Upgrade"))}
	}
	return rest, nil
}

// exchange sends a request without a body and reads the head of the response, and what came with it.
func exchange(conn net.Conn, method, request string) (*http.Response, []byte, error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, nil, err
	}
	br := bufio.NewReader(io.LimitReader(conn, maxResponse))
	for range 5 { // interim responses, RFC 9110 §15.2
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		rest, err := br.Peek(br.Buffered())
		return resp, rest, err
	}
	return nil, nil, errors.New("too many interim responses")
}
