package localapi

import (
	"context"
	"errors"
)

// Locate is a client of the first of the sockets on which a node answers. When none does the error is ErrNoNode for
// the first one; a socket that is there and may not be used comes before that.
func Locate(ctx context.Context, paths ...string) (*Client, error) {
	var none, other error
	for _, path := range paths {
		conn, err := connect(ctx, path)
		if err == nil {
			conn.Close()
			return NewClient(path), nil
		}
		switch {
		case !errors.Is(err, ErrNoNode) && other == nil:
			other = err
		case none == nil:
			none = err
		}
	}
	switch {
	case other != nil:
		return nil, other
	case none != nil:
		return nil, none
	}
	return nil, ErrNoNode
}
