package meshnet

import (
	"context"
	"iter"
	"sync"
	"time"
)

// EventType says what happened.
type EventType string

// The types of events.
const (
	EventNodeReady        EventType = "node_ready"
	EventNodeStopping     EventType = "node_stopping"
	EventPeerAdded        EventType = "peer_added"
	EventPeerRemoved      EventType = "peer_removed"
	EventPeerConnected    EventType = "peer_connected"
	EventPeerDisconnected EventType = "peer_disconnected"
	EventPathChanged      EventType = "path_changed"
	EventPeersDiscovered  EventType = "peers_discovered"
	EventEndpointChanged  EventType = "endpoint_changed"
	EventAddressChanged   EventType = "address_changed"
	EventHomeChanged      EventType = "home_changed"
	EventRelayConnected   EventType = "relay_connected"
	EventRelayLost        EventType = "relay_lost"
	EventBootstrapFailed  EventType = "bootstrap_failed"
	EventConnectionFailed EventType = "connection_failed"
	EventNameConflict     EventType = "name_conflict"
	EventInviteOverused   EventType = "invite_overused"
	EventIdentityCloned   EventType = "identity_cloned"
	EventMemberRevoked    EventType = "member_revoked"
	EventHealth           EventType = "health"
	EventError            EventType = "error"
)

// Event is one thing that happened, and a line of `meshnet events --json`.
type Event struct {
	Time time.Time      `json:"time"`
	Type EventType      `json:"type"`
	Peer *string        `json:"peer"` // PeerID
	Name *string        `json:"name"` // its name
	Data map[string]any `json:"data"`
}

// subscriberQueue is how many events wait for a slow subscriber. When it is full, new ones are lost to it; the next
// one it gets says how many in Data["lost"].
const subscriberQueue = 256

// bus hands events to subscribers. Safe for concurrent use.
type bus struct {
	mu     sync.Mutex
	subs   map[*subscriber]struct{} // guarded by mu; nil once closed
	closed bool                     // guarded by mu
}

type subscriber struct {
	ch   chan Event
	lost int // guarded by bus.mu
}

func (b *bus) publish(e Event) {
	if e.Data == nil {
		e.Data = map[string]any{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		if s.lost > 0 {
			data := map[string]any{"lost": s.lost}
			for k, v := range e.Data {
				data[k] = v
			}
			e.Data = data
		}
		select {
		case s.ch <- e:
			s.lost = 0
		default:
			s.lost++
		}
	}
}

func (b *bus) subscribe() *subscriber {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &subscriber{ch: make(chan Event, subscriberQueue)}
	if b.closed {
		close(s.ch)
		return s
	}
	if b.subs == nil {
		b.subs = make(map[*subscriber]struct{})
	}
	b.subs[s] = struct{}{}
	return s
}

func (b *bus) unsubscribe(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		close(s.ch)
	}
	b.subs = nil
}

// events yields what is published until ctx is done or the bus is closed.
func (b *bus) events(ctx context.Context) iter.Seq[Event] {
	s := b.subscribe() // now, so that nothing between this call and the first iteration is missed
	return func(yield func(Event) bool) {
		defer b.unsubscribe(s)
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-s.ch:
				if !ok || !yield(e) {
					return
				}
			}
		}
	}
}
