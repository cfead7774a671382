package relayserver

import (
	"context"
	"crypto/rand"
	"net"
	"sync"

	"github.com/meshnet/meshnet/relay"
)

// Memory is a relay in memory: a Server whose clients are joined to it by pipes. Safe for concurrent use.
type Memory struct {
	*Server
	wg sync.WaitGroup
}

// NewMemory makes one. Close ends it.
func NewMemory(cfg Config) *Memory { return &Memory{Server: New(cfg)} }

// Dial gives the client's end of a new stream. Both ends have an exporter in common, as those of a TLS session do. After
// Close the stream ends at once.
func (m *Memory) Dial(ctx context.Context) (relay.Stream, error) {
	if err := ctx.Err(); err != nil {
		return relay.Stream{}, err
	}
	exporter := make([]byte, relay.ExporterLen)
	rand.Read(exporter)
	client, server := net.Pipe()
	m.wg.Go(func() {
		err := m.ServeConn(context.Background(), relay.Stream{Conn: server, Exporter: exporter})
		if err != nil {
			m.log.Debug("relay stream ended", "err", err)
		}
	})
	return relay.Stream{Conn: client, Exporter: exporter, Host: "memory"}, nil
}

// Close is Server.Close, and waits for all streams.
func (m *Memory) Close() error {
	err := m.Server.Close()
	m.wg.Wait()
	return err
}
