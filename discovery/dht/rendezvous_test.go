package dht

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// board is a DHT without a network: what is written is there for all.
type board struct {
	mu      sync.Mutex
	there   map[identity.Secret][]Record
	lookups int
	writes  int
	err     error
}

func (b *board) Lookup(_ context.Context, secret identity.Secret, _ time.Time) ([]Record, error) {
	time.Sleep(3 * time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lookups++
	return b.there[secret], b.err
}

func (b *board) publish(
	_ context.Context, secret identity.Secret, _ identity.PeerID, own Record, enough func([]Record) bool,
) (bool, error) {
	time.Sleep(2 * time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || enough(b.there[secret]) {
		return false, b.err
	}
	b.writes++
	b.there[secret] = merge(own, b.there[secret], own.At)
	return true, nil
}

func (b *board) counts() (lookups, writes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lookups, b.writes
}

// member is one that lacks peers until it has found somebody.
type member struct {
	mu      sync.Mutex
	lacking bool
	found   []string
	at      time.Time
}

func (m *member) isLacking() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lacking
}

func (m *member) take(r Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lacking {
		m.found, m.lacking, m.at = append(m.found, string(r.Data)), false, time.Now()
	}
}

func (b *board) start(t *testing.T, id byte, m *member, uses ...Use) *Rendezvous {
	t.Helper()
	r := newRendezvous(b, RendezvousConfig{
		ID: idOf(id), Own: func() []byte { return []byte{'a' + id} }, Lacking: m.isLacking, Found: m.take,
		Secrets: func(time.Time) []Use { return uses },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func TestRendezvousMeets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{there: make(map[identity.Secret][]Record)}
		network := Use{Secret: secretOf(1), Read: true, Write: true}
		first, second := &member{lacking: true}, &member{lacking: true}
		start := time.Now()
		b.start(t, 1, first, network)
		b.start(t, 2, second, network)
		time.Sleep(time.Minute)
		for i, m := range []*member{first, second} {
			if m.isLacking() || m.at.Sub(start) > 15*time.Second {
				t.Errorf("member %d found %q after %v", i, m.found, m.at.Sub(start))
			}
		}
		before, _ := b.counts()
		time.Sleep(time.Hour)
		if after, writes := b.counts(); after != before || writes > 4 {
			t.Errorf("%d lookups while nobody lacks, and %d writes", after-before, writes)
		}
	})
}

func TestRendezvousOfAJoiner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{there: make(map[identity.Secret][]Record)}
		inviter, joiner := new(member), &member{lacking: true}
		invite := secretOf(9)
		b.start(t, 1, inviter, Use{Secret: secretOf(1), Read: true, Write: true}, Use{Secret: invite, Write: true})
		start := time.Now()
		b.start(t, 2, joiner, Use{Secret: invite, Read: true})
		time.Sleep(5 * time.Minute)
		if joiner.isLacking() || joiner.at.Sub(start) > 90*time.Second || joiner.found[0] != "b" {
			t.Errorf("the joiner found %q after %v", joiner.found, joiner.at.Sub(start))
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.there[invite]) != 1 {
			t.Errorf("at the invite's location: %v", b.there[invite])
		}
	})
}

func TestRendezvousWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{there: make(map[identity.Secret][]Record), err: ErrNoNodes}
		m := new(member)
		r := b.start(t, 1, m, Use{Secret: secretOf(1), Read: true})
		time.Sleep(time.Hour)
		if lookups, _ := b.counts(); lookups != 0 {
			t.Fatalf("%d lookups", lookups)
		}
		m.mu.Lock()
		m.lacking = true
		m.mu.Unlock()
		r.Wake()
		time.Sleep(4 * time.Second)
		if lookups, _ := b.counts(); lookups != 1 {
			t.Errorf("%d lookups after waking", lookups)
		}
	})
}
