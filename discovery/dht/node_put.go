package dht

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"
)

const (
	maxRetries = 3
	retryPause = 400 * time.Millisecond
)

// putting is one write to a location. Owned by one goroutine.
//
//	merge with what was read ─▶ put to every holder ─▶ read from each again
//	        ▲                                              │
//	        └── another writer came between at more than a few, ≤ 3 times, after a random pause
//
// A put is refused unless its sequence number is above what the node has, and, with compare-and-swap, unless the node
// has what it had when it was read. Nodes of the DHT library that does not say what it is get the former only: they
// compare with what the stored value was compared with, and so would be closed to everybody from the third put on.
type putting struct {
	node    *Node
	engine  *engine
	held    *held
	own     Record
	holders []*candidate
}

func (p *putting) run(ctx context.Context) error {
	kept := 0
	for try := range maxRetries + 1 {
		if p.held.seq == math.MaxInt64 {
			break // somebody with the secret has closed the location to all
		}
		if err := p.write(ctx); err != nil {
			return err
		}
		var lost int
		kept, lost = p.read(ctx)
		if lost*2 <= kept && kept > 0 || lost == 0 {
			break
		}
		if try < maxRetries && !p.pause(ctx, try) {
			break
		}
	}
	if kept == 0 {
		return ErrNotStored
	}
	return nil
}

// write puts the merged value to every holder.
func (p *putting) write(ctx context.Context) error {
	at := p.held.at
	seq := max(p.held.seq+1, p.own.At.Unix())
	value := at.sealValue(merge(p.own, p.held.records, p.own.At))
	encoded, err := bencode.Marshal(value)
	if err != nil {
		return err
	}
	args := krpc.MsgArgs{V: value, K: at.public, Salt: at.salt, Seq: &seq}
	copy(args.Sig[:], bep44.Sign(at.key, at.salt, seq, encoded))
	p.each(ctx, func(c *candidate) {
		args := args
		args.Token = c.token
		if c.holds && c.swaps {
			args.Cas = c.seq
		}
		_, err := p.node.ask(ctx, p.engine, c.addr, "put", args)
		c.written = err == nil
	})
	return nil
}

// read asks every holder what it has now: how many have the own record, and how many another value. A node that took
// nothing and has what it had before cannot compare, and does not have to the next time.
func (p *putting) read(ctx context.Context) (kept, lost int) {
	var mu sync.Mutex
	p.each(ctx, func(c *candidate) {
		msg, err := p.node.ask(ctx, p.engine, c.addr, "get", getArgs(nodeID(p.held.at.target), c))
		if err != nil || msg.R == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if msg.R.Token != nil {
			c.token = *msg.R.Token
		}
		seq, has, honest := p.held.take(msg.R)
		if !honest || !has {
			return
		}
		if !c.written && c.holds && c.seq == seq {
			c.swaps = false
		}
		c.seq, c.holds = seq, true
		records, err := p.held.at.openValue(msg.R.V)
		own := func(r Record) bool { return r.Key == p.own.Key && !r.At.Before(p.own.At) }
		if err == nil && slices.ContainsFunc(records, own) {
			kept++
		} else {
			lost++
		}
	})
	return kept, lost
}

// each runs f for all holders side by side, each begun within the rate of queries.
func (p *putting) each(ctx context.Context, f func(c *candidate)) {
	var wg sync.WaitGroup
	for _, c := range p.holders {
		if p.node.limit.Wait(ctx) != nil {
			break
		}
		wg.Go(func() { f(c) })
	}
	wg.Wait()
}

// pause waits for a random time, longer with every try. It reports whether to go on.
func (p *putting) pause(ctx context.Context, try int) bool {
	timer := time.NewTimer(retryPause/2 + rand.N(retryPause<<try))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
