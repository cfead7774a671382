package relaytest

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/relay"
)

// patience is how long anything that should happen may take.
const patience = 10 * time.Second

// Node is a client with all that it was told. Safe for concurrent use.
type Node struct {
	*relay.Client
	ID  identity.PeerID
	Key *identity.Identity

	mu     sync.Mutex
	got    []datagram.Relayed
	gone   map[identity.PeerID]relay.Reason
	health []string
	again  time.Duration
	ended  chan struct{}
	err    error
	cancel context.CancelFunc
}

// Connect joins a node to a relay. The test's end disconnects it.
func Connect(t *testing.T, r Relay, change ...func(*relay.ClientConfig)) *Node {
	t.Helper()
	n, err := TryConnect(t, r, change...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TryConnect is Connect for a node that may be refused.
func TryConnect(t *testing.T, r Relay, change ...func(*relay.ClientConfig)) (*Node, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := r.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{ended: make(chan struct{}), gone: make(map[identity.PeerID]relay.Reason), cancel: cancel}
	cfg := relay.ClientConfig{
		Identity: identity.New(), Deliver: n.deliver, Gone: n.wasGone, Restarting: n.restarting, Health: n.hear,
	}
	for _, f := range change {
		f(&cfg)
	}
	n.Key, n.ID = cfg.Identity, cfg.Identity.ID()
	if n.Client, err = relay.NewClient(ctx, stream, cfg); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer close(n.ended)
		n.err = n.Run(ctx)
	}()
	t.Cleanup(n.Close)
	return n, nil
}

// Close disconnects the node and waits until it is.
func (n *Node) Close() {
	n.cancel()
	<-n.ended
}

// Ended is why Run returned, which it does in time.
func (n *Node) Ended(t *testing.T) error {
	t.Helper()
	select {
	case <-n.ended:
		return n.err
	case <-time.After(patience):
		t.Fatal("the client still runs")
		return nil
	}
}

func (n *Node) deliver(batch []datagram.Relayed, done func()) {
	defer done()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range batch {
		n.got = append(n.got, datagram.Relayed{From: batch[i].From, Data: bytes.Clone(batch[i].Data)})
	}
}

func (n *Node) wasGone(id identity.PeerID, reason relay.Reason) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone[id] = reason
}

func (n *Node) restarting(in, _ time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.again = in
}

func (n *Node) hear(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.health = append(n.health, text)
}

// Got is what arrived until now.
func (n *Node) Got() []datagram.Relayed {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.got[:len(n.got):len(n.got)]
}

// Await returns the first count datagrams once they have arrived.
func (n *Node) Await(t *testing.T, count int) []datagram.Relayed {
	t.Helper()
	Until(t, func() bool { return len(n.Got()) >= count })
	return n.Got()
}

// Gone is what was told of a node that left or is not there.
func (n *Node) Gone(id identity.PeerID) (relay.Reason, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	reason, told := n.gone[id]
	return reason, told
}

// Health is what the relay had to say.
func (n *Node) Health() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.health[:len(n.health):len(n.health)]
}

// Until polls for a condition.
func Until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in time")
		}
		time.Sleep(time.Millisecond)
	}
}
