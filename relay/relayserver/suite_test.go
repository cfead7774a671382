package relayserver_test

import (
	"testing"

	"github.com/meshnet/meshnet/relay/relayserver"
	"github.com/meshnet/meshnet/relay/relaytest"
)

func TestMemory(t *testing.T) {
	relaytest.Run(t, startMemory)
}

func TestTLS(t *testing.T) {
	relaytest.Run(t, func(t *testing.T, cfg relayserver.Config) relaytest.Relay {
		w := newTLSWorld(t, cfg)
		return relaytest.Relay{Server: w.Server, Dial: w.Dial}
	})
}

func startMemory(t *testing.T, cfg relayserver.Config) relaytest.Relay {
	m := relayserver.NewMemory(cfg)
	t.Cleanup(func() { m.Close() })
	return relaytest.Relay{Server: m.Server, Dial: m.Dial}
}
