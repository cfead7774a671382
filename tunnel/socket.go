package tunnel

import (
	"context"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// socket is what carries datagrams to members and brings theirs: magicsock.Conn.
type socket interface {
	// Legs is how many ways datagrams come in; each has a goroutine in Receive.
	Legs() int
	// Receive gives take what arrives by a leg until ctx ends: WireGuard messages only.
	Receive(ctx context.Context, leg int, take func(now time.Time, trains []datagram.Train)) error
	// PeerByKey is how to reach the member with a WireGuard key; nil: the socket does not know it.
	PeerByKey(key identity.WGKey) datagram.Peer
	// Reply answers where a datagram came from.
	Reply(to *datagram.Source, pkt []byte)
}
