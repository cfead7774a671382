package tunnel

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/meshnet/meshnet/tunnel/noise"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// owner runs the WireGuard machine: the only goroutine that does. It takes commands, handshake messages from the door,
// and the packet path's notes, and does what the machine answers.
type owner struct {
	machine *wg.Machine
	tap     *tap
	door    *door
	out     *outbox
	cfg     *Config
	log     *slog.Logger
	relink  func(*peer)

	sweepAt  time.Time // of the lot; the zero time: nothing waits
	reserved time.Time // own initiations bear earlier times than this
}

// loop ends with ctx, or when the interface is gone.
func (t *Tunnel) loop(ctx context.Context, o *owner, gone <-chan error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		o.perform(now, o.machine.Tick(now))
		o.sweep(now)
		timer.Reset(o.wait(now))
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return fmt.Errorf("tunnel: %s: %w: %w", t.name, ErrInterfaceGone, err)
		case f := <-t.commands:
			f(o)
		case k := <-o.door.queue:
			o.hear(&k)
		case <-o.machine.Notes().Wake:
			o.drain(t.commands) // a new peer is made known before its packets ask for it
			now := time.Now()
			o.perform(now, o.machine.TakeNotes(now))
		case <-timer.C:
		}
	}
}

// drain does the commands that wait.
func (o *owner) drain(commands <-chan func(*owner)) {
	for {
		select {
		case f := <-commands:
			f(o)
		default:
			return
		}
	}
}

func (o *owner) close() {
	o.machine.Close()
	if o.cfg.Reserve != nil && !o.machine.Stamp().IsZero() {
		o.cfg.Reserve(o.machine.Stamp())
	}
}

// wait is how long until something is due.
func (o *owner) wait(now time.Time) time.Duration {
	next := o.machine.Next(now)
	if !o.sweepAt.IsZero() && (next.IsZero() || o.sweepAt.Before(next)) {
		next = o.sweepAt
	}
	if next.IsZero() {
		return time.Hour
	}
	return max(next.Sub(now), 0)
}

// sweep throws out what waited too long.
func (o *owner) sweep(now time.Time) {
	if o.sweepAt.IsZero() || now.Before(o.sweepAt) {
		return
	}
	o.sweepAt = time.Time{}
	if o.tap.lot.sweep(now) {
		o.sweepAt = now.Add(time.Second)
	}
}

// sweepSoon has the lot swept within a second.
func (o *owner) sweepSoon(now time.Time) {
	if o.sweepAt.IsZero() {
		o.sweepAt = now.Add(time.Second)
	}
}

// hear takes a handshake message.
func (o *owner) hear(k *knock) {
	now := time.Now()
	switch msg := k.bytes(); noise.TypeOf(msg) {
	case noise.TypeInitiation:
		o.perform(now, o.machine.Initiation(now, msg, &k.from))
	case noise.TypeResponse:
		o.perform(now, o.machine.Response(now, msg, &k.from))
	case noise.TypeCookieReply:
		o.perform(now, o.machine.CookieReply(now, msg))
	}
}

// members makes a change of the members known to the machine.
func (o *owner) members(c change) {
	now := time.Now()
	for _, p := range c.gone {
		o.perform(now, o.machine.Remove(now, p.wg))
		o.tap.lot.forget(p)
		o.sweepSoon(now) // a packet that looked into the old table may be parked yet
	}
	for _, p := range c.added {
		o.machine.Add(p.wg, p.member.Load().PSKs)
	}
	for _, p := range c.rekeyed {
		o.machine.SetPSKs(p.wg, p.member.Load().PSKs)
	}
}

// perform does what the machine decided.
func (o *owner) perform(now time.Time, actions []wg.Action) {
	for i := range actions {
		a := &actions[i]
		p := a.Peer.Owner.(*peer)
		switch a.Kind {
		case wg.ActInitiate:
			o.initiate(now, p, a)
		case wg.ActReply:
			o.cfg.Socket.Reply(&a.To, a.Message)
		case wg.ActHeard:
			o.relink(p)
			if l := p.linked(); l != nil {
				l.Authenticated(now, &a.To, noise.InitiationSize)
			}
		case wg.ActKeepalive:
			o.keepalive(now, p)
		case wg.ActEstablished:
			o.established(now, p, a.First)
		case wg.ActGaveUp:
			o.log.Debug("handshake given up", "peer", p.id)
		}
	}
}

// initiate sends an initiation by every path. Its time must not come again after a restart.
func (o *owner) initiate(now time.Time, p *peer, a *wg.Action) {
	if stamp := o.machine.Stamp(); o.cfg.Reserve != nil && stamp.Add(time.Minute).After(o.reserved) {
		o.reserved = stamp.Add(reserveAhead)
		o.cfg.Reserve(o.reserved)
	}
	if !p.wg.Ready(o.machine.Clock().At(now)) {
		o.sweepSoon(now)
		o.cfg.Want(p.id)
	}
	o.relink(p)
	if l := p.linked(); l != nil {
		l.SendAll(now, a.Message)
	}
}

// reserveAhead is for how long the times of own initiations are reserved at once.
const reserveAhead = 10 * time.Minute

func (o *owner) keepalive(now time.Time, p *peer) {
	o.out.begin(now)
	o.out.keepalive(p)
	o.out.flush()
}

// established lets packets go that waited. When none did, a keepalive tells the other side that the session works.
func (o *owner) established(now time.Time, p *peer, first bool) {
	o.out.begin(now)
	send := func(batch [][]byte) {
		for _, pkt := range batch {
			o.out.put(p, pkt)
		}
		o.out.flush()
	}
	if o.tap.lot.release(p, now, send) == 0 {
		o.out.keepalive(p)
		o.out.flush()
	}
	o.cfg.Established(p.id, first)
}
