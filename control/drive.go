package control

import (
	"context"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
)

const (
	startFor = 10 * time.Second // the five steps
	writeFor = 10 * time.Second
	// paceBytes is how many bytes a second a session sends when it has more than a burst of them.
	paceBytes = 2 << 20
	paceBurst = 4 << 20
)

// stream drives a session over a connection with a reader and a writer goroutine. Neither holds Mesh.mu while it reads,
// writes or waits.
type stream struct {
	mesh *Mesh
	*session
	conn   *wire.Conn
	opened func() // called once the five steps are over
}

// run speaks with a peer until the connection or ctx ends. It returns the session and why it ended. opened may be nil.
func (m *Mesh) run(ctx context.Context, peer identity.PeerID, r role, conn *wire.Conn, opened func()) (*session, error) {
	st := &stream{m, m.newSession(peer, r, conn.Abort), conn, opened}
	err := st.run(ctx)
	m.ended(st.session, err)
	return st.session, err
}

func (st *stream) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, st.conn.Abort)
	defer stop()
	start := time.AfterFunc(startFor, cancel)
	defer start.Stop()
	wg.Go(func() {
		st.write(ctx)
		cancel()
	})
	err := st.read(ctx, start)
	st.mesh.leave(st.session, err)
	cancel()
	wg.Wait()
	st.conn.Close()
	return err
}

// read handles what comes, in order.
func (st *stream) read(ctx context.Context, start *time.Timer) error {
	if err := st.mesh.begin(st.session); err != nil {
		return err
	}
	for {
		t, body, err := st.conn.ReadMessage()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		up, err := st.mesh.receive(st.session, t, body)
		if err != nil {
			return err
		}
		if up {
			start.Stop()
			st.conn.SetReadFor(deadAfter)
			if st.opened != nil {
				st.opened()
			}
		}
	}
}

// write sends what waits, and ticks.
func (st *stream) write(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pace := pacer{last: time.Now()}
	for {
		select {
		case <-ctx.Done():
			st.sayGoodbye()
			return
		case <-st.out.wake:
		case <-timer.C:
		}
		if !st.mesh.tick(st.session) || !st.drain(ctx, &pace) {
			st.conn.Abort() // the reader ends too
			return
		}
		now := st.mesh.wall()
		timer.Reset(st.next(now).Sub(now))
	}
}

// drain sends what waits, signals ahead of each other frame. It reports whether the stream goes on.
func (st *stream) drain(ctx context.Context, pace *pacer) bool {
	frames, over := st.out.take()
	for {
		next := st.out.takeSignals()
		if len(frames) > 0 {
			next, frames = append(next, frames[0]), frames[1:]
		}
		if len(next) == 0 {
			break
		}
		for _, f := range next {
			st.noteSent(st.mesh.wall(), f)
			if st.conn.WriteRaw(f.kind, f.body) != nil {
				return false
			}
			if !pace.sent(ctx, len(f.body)) {
				return true // write says goodbye
			}
		}
	}
	if over {
		_ = st.conn.WriteMessage(typeClose, &closing{reasonSlow}) // best effort: the stream ends anyway
	}
	return !over
}

// sayGoodbye sends the reason of an end that we chose.
func (st *stream) sayGoodbye() {
	st.mesh.mu.Lock()
	reason := st.reason
	st.mesh.mu.Unlock()
	if reason != "" {
		_ = st.conn.WriteMessage(typeClose, &closing{reason}) // best effort: the stream ends anyway
	}
}

// pacer bounds the bytes per second of a session. Owned by its writer.
type pacer struct {
	last  time.Time
	ahead float64 // bytes sent beyond the pace
}

// sent notes n bytes and waits when there were too many. It reports false when ctx ended.
func (p *pacer) sent(ctx context.Context, n int) bool {
	now := time.Now()
	p.ahead = max(0, p.ahead-now.Sub(p.last).Seconds()*paceBytes) + float64(n)
	p.last = now
	if p.ahead <= paceBurst {
		return true
	}
	wait := time.NewTimer(time.Duration((p.ahead - paceBurst) / paceBytes * float64(time.Second)))
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}
