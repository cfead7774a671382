package dht

import (
	"context"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// findMore is how long a lookup that has found something waits for more.
const findMore = 1500 * time.Millisecond

// Lookup reads all locations of a secret, those of the slot of now, and when they hold nothing those of the slot before
// and then of the one after. It returns every writer's newest record, unproven; none is no error. It takes up to 10 s
// for a slot, and about a second more than the first record when there is one. ErrNotRunning, ErrNoNodes, or that of
// ctx.
func (n *Node) Lookup(ctx context.Context, secret identity.Secret, now time.Time) ([]Record, error) {
	e := n.running()
	if e == nil {
		return nil, ErrNotRunning
	}
	start := time.Now()
	var records []Record
	var err error
	for _, off := range []slot{0, -1, 1} {
		records, err = n.look(ctx, e, secret, slotAt(now)+off)
		if err != nil || len(records) > 0 {
			break
		}
	}
	n.note(&n.status.LastLookup, err)
	n.cfg.Logger.Debug("DHT lookup", "records", len(records), "err", err, "took", time.Since(start))
	return records, err
}

// look reads all locations of one slot.
func (n *Node) look(ctx context.Context, e *engine, secret identity.Secret, s slot) ([]Record, error) {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		records []Record
		reached bool // some node answered
		grace   *time.Timer
	)
	first := make(chan struct{}) // closed when there are nodes to begin with, or none at all
	begin := sync.OnceFunc(func() { close(first) })
	progress := func(h *held) {
		mu.Lock()
		defer mu.Unlock()
		reached = true
		records = union(records, h.records)
		if grace == nil && len(records) > 0 {
			grace = time.AfterFunc(findMore, cancel)
		}
		if h.answers >= enoughContacts {
			begin()
		}
	}
	rest := 0
	if nodes, _ := n.contacts.count(time.Now()); nodes < enoughContacts {
		wg.Go(func() {
			n.get(ctx, e, locationOf(secret, s, 0), progress)
			begin()
		})
		<-first
		rest = 1
	}
	mu.Lock()
	more := rest == 0 || reached
	mu.Unlock()
	for index := rest; index < locationCount && more; index++ {
		wg.Go(func() { n.get(ctx, e, locationOf(secret, s, index), progress) })
	}
	wg.Wait()
	if grace != nil {
		grace.Stop()
	}
	switch {
	case len(records) > 0:
		return records, nil
	case outer.Err() != nil:
		return nil, outer.Err()
	case e.stopped.Err() != nil:
		return nil, ErrNotRunning
	case !reached:
		return nil, ErrNoNodes
	}
	return nil, nil
}

// Publish writes data, 1 to 512 bytes, as the record of id to its location in the slot of now, beside what others wrote
// there. It takes up to 20 s. ErrTooLong, ErrNotRunning, ErrNoNodes, ErrNotStored, or that of ctx.
func (n *Node) Publish(ctx context.Context, secret identity.Secret, id identity.PeerID, data []byte, now time.Time) error {
	_, err := n.publish(ctx, secret, id, Record{Key: KeyOf(id), At: now, Data: data}, nil)
	return err
}

// publish is Publish of id's record at its time, unless what is there already is enough. It reports whether it wrote.
// enough nil: nothing is.
func (n *Node) publish(
	ctx context.Context, secret identity.Secret, id identity.PeerID, own Record, enough func(there []Record) bool,
) (wrote bool, err error) {
	e := n.running()
	switch {
	case len(own.Data) == 0 || len(own.Data) > MaxData:
		return false, ErrTooLong
	case e == nil:
		return false, ErrNotRunning
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, 2*searchLimit)
	defer cancel()
	defer context.AfterFunc(e.stopped, cancel)()
	start := time.Now()
	own.At = time.Unix(own.At.Unix(), 0)
	s := slotAt(own.At)
	at := locationOf(secret, s, indexOf(id, s))
	search, held, err := n.get(ctx, e, at, nil)
	switch {
	case err == nil && enough != nil && enough(held.records):
	case err == nil:
		wrote = true
		err = (&putting{node: n, engine: e, held: held, own: own, holders: search.holders()}).run(ctx)
	}
	switch {
	case err == nil:
	case outer.Err() != nil:
		err = outer.Err()
	case e.stopped.Err() != nil:
		err = ErrNotRunning
	}
	n.note(&n.status.LastPublish, err)
	n.cfg.Logger.Debug("DHT publish", "wrote", wrote, "records", len(held.records), "err", err, "took", time.Since(start))
	return wrote && err == nil, err
}
