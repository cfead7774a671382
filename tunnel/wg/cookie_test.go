package wg

import (
	"bytes"
	"testing"
	"time"

	"github.com/meshnet/meshnet/tunnel/noise"
)

// guard puts a door under load before a node: what has no good second mac gets a cookie.
func (w *world) guard(n *node, kinds ...byte) (refused *int) {
	c := noise.NewChecker(n.m.Static())
	inner := w.route
	refused = new(int)
	w.route = func(from, to *node, msg []byte) []time.Duration {
		if to != n || !bytes.Contains(kinds, msg[:1]) {
			return inner(from, to, msg)
		}
		source := from.addr.Addr.String()
		if c.CheckMAC2(w.now, msg, []byte(source)) {
			return inner(from, to, msg)
		}
		*refused++
		var reply [noise.CookieReplySize]byte
		if err := c.Reply(w.now, msg, []byte(source), &reply); err != nil {
			w.t.Fatal(err)
		}
		w.after(2*hop, func() { from.receive(n, reply[:]) })
		return nil
	}
	return refused
}

func TestCookie(t *testing.T) {
	w, a, b := pair(t, 1)
	refused := w.guard(b, noise.TypeInitiation)
	id, start := a.send(b), w.now
	w.until(w.now.Add(time.Second), func() bool { return w.arrived[id] > 0 })
	if w.arrived[id] != 1 || w.now.Sub(start) != 5*hop || *refused != 1 || a.m.Counters().CookiesUsed != 1 {
		t.Errorf("after %v, %d refused, %+v", w.now.Sub(start), *refused, a.m.Counters())
	}
	w.run(RekeyAfterTime - time.Second) // within the cookie's time: the rekey bears it at once
	a.perform(a.m.Renew(w.now, a.peers[b]))
	w.run(500 * time.Millisecond)
	if *refused != 1 {
		t.Error("the cookie is not kept")
	}
	w.run(2 * time.Minute)
	a.perform(a.m.Renew(w.now, a.peers[b])) // too old: asked for a new one
	w.run(time.Second)
	if *refused != 2 || !agree(a, b) {
		t.Errorf("%d refused", *refused)
	}
}

// An initiator under load may refuse responses without a cookie, as the reference implementation does.
func TestCookieForResponse(t *testing.T) {
	w, a, b := pair(t, 1)
	refused := w.guard(a, noise.TypeResponse)
	id := a.send(b)
	w.run(time.Second)
	if w.arrived[id] != 1 || *refused != 1 || b.m.Counters().CookiesUsed == 0 {
		t.Errorf("%d refused, %+v", *refused, b.m.Counters())
	}
}

func TestForgedCookies(t *testing.T) {
	w, a, b := pair(t, 1)
	c := w.node("c")
	w.route = func(*node, *node, []byte) []time.Duration { return nil }
	a.send(b)
	initiation := w.trace[0].msg
	var reply [noise.CookieReplySize]byte
	checker := noise.NewChecker(c.m.Static())
	if checker.Reply(w.now, initiation, nil, &reply) == nil {
		t.Fatal("c answered for b")
	}
	a.perform(a.m.CookieReply(w.now, reply[:]))
	// Whoever saw the initiation can make one. It costs one more initiation, not one for each.
	own := noise.NewChecker(b.m.Static())
	for range 100 {
		if err := own.Reply(w.now, initiation, []byte("x"), &reply); err != nil {
			t.Fatal(err)
		}
		a.perform(a.m.CookieReply(w.now, reply[:]))
		reply[40] ^= 1
		a.perform(a.m.CookieReply(w.now, reply[:]))
	}
	if n := len(w.sent(a, noise.TypeInitiation)); n != 2 {
		t.Errorf("%d initiations after 100 cookies", n)
	}
	if a.m.Counters().BadCookie < 100 {
		t.Errorf("%+v", a.m.Counters())
	}
}
