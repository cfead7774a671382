package relay_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

const ms = time.Millisecond

// The first datagram waits for the peer's home to be dialled; the answer comes by it; when both are silent, only homes
// stay connected.
func TestPoolDialsThePeersHome(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("one", 10*ms, relayserver.Config{})
		w.start("two", 20*ms, relayserver.Config{})
		b := w.node("two")
		time.Sleep(5 * time.Second)
		a := w.node("one")
		a.knows(b, "two")
		if !a.Reaches(b.id) || a.Via(b.id) != urlOf("two") {
			t.Errorf("before anything was sent it goes via %q", a.Via(b.id))
		}
		if up := a.up(); up != "" {
			t.Errorf("asking for a way connects to %s", up)
		}
		for i := range 3 {
			if err := a.say(b, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(100 * ms)
		if got := b.heard(); got != "0 1 2" {
			t.Errorf("heard %q", got)
		}
		if via := b.Via(a.id); via != urlOf("two") {
			t.Errorf("the answer goes via %s", via)
		}
		if err := b.say(a, "answer"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * ms)
		if got := a.heard(); got != "answer" {
			t.Errorf("the answer is %q", got)
		}
		time.Sleep(5 * time.Second)
		if up := a.up(); up != "one* two" {
			t.Errorf("connected to %q", up)
		}
		if homes := namesOf(a.Homes()); homes != "one" {
			t.Errorf("the homes are %q", homes)
		}
		time.Sleep(time.Minute)
		if up := a.up(); up != "one*" {
			t.Errorf("after a minute of silence connected to %q", up)
		}
		if told := a.told(); told != "connected two, connected one, homes changed one, lost two" &&
			told != "connected one, connected two, homes changed one, lost two" {
			t.Errorf("told %q", told)
		}
		if err := b.say(a, "after the silence"); err != nil {
			t.Fatal(err)
		}
		b.knows(a, "one")
		time.Sleep(10 * time.Second) // b is told that a is gone, and may try there again
		if err := b.say(a, "by its home"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * ms)
		if got := a.heard(); got != "by its home" {
			t.Errorf("heard %q", got)
		}
	})
}

// Home relays that die in all ways they can: the next one carries on.
func TestPoolFailover(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kill   func(w *world)
		outage time.Duration
	}{
		{"restart", func(w *world) { w.shut("one") }, 100 * ms},
		{"crash", func(w *world) { w.crash("one") }, 100 * ms},
		{"dead network", func(w *world) {
			w.each("one", (*wire).cut)
			w.hang("one", true)
		}, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.start("one", 10*ms, relayserver.Config{})
				w.start("two", 20*ms, relayserver.Config{})
				a, b := w.node("one two"), w.node("one two")
				a.knows(b, "one two")
				b.knows(a, "one two")
				time.Sleep(10 * time.Second)
				if up := a.up(); up != "one* two*" {
					t.Fatalf("connected to %s", up)
				}
				outage, lost := stream(t, a, b, 20*time.Second, func() {
					if via := a.Via(b.id); via != urlOf("one") {
						t.Errorf("it goes via %s", via)
					}
					tt.kill(w)
				})
				t.Logf("outage %v, %d lost", outage, lost)
				if outage > tt.outage {
					t.Errorf("the outage is %v, more than %v", outage, tt.outage)
				}
				if via := a.Via(b.id); via != urlOf("two") {
					t.Errorf("it goes via %s", via)
				}
				if homes := namesOf(a.Homes()); homes != "two" {
					t.Errorf("the homes are %q", homes)
				}
			})
		})
	}
}

// With one home only, the spare is dialled when it is lost.
func TestPoolSpare(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("one", 10*ms, relayserver.Config{})
		w.start("two", 20*ms, relayserver.Config{})
		one := func(cfg *relay.PoolConfig) { cfg.Homes = 1 }
		a, b := w.node("one two", one), w.node("one two", one)
		time.Sleep(2 * time.Minute)
		if up := a.up(); up != "one*" {
			t.Fatalf("connected to %s", up)
		}
		outage, lost := stream(t, a, b, 10*time.Second, func() { w.crash("one") })
		t.Logf("outage %v, %d lost", outage, lost)
		if outage > 500*ms {
			t.Errorf("the outage is %v", outage)
		}
		if up := a.up(); up != "two*" {
			t.Errorf("connected to %s", up)
		}
	})
}

// A relay that is back is used again, and is no hot loop while it is not.
func TestPoolRedials(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.node("one two")
		time.Sleep(10 * time.Minute)
		if n := a.Counters()["open_fail"]; n < 2*20 || n > 2*32 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		if err := a.Send(identity.New().ID(), [][]byte{{1}}, false); !errors.Is(err, relay.ErrNoServer) {
			t.Errorf("error %v", err)
		}
		w.start("one", 10*ms, relayserver.Config{})
		time.Sleep(40 * time.Second)
		if homes := namesOf(a.Homes()); homes != "one" {
			t.Errorf("the homes are %q", homes)
		}
		for _, s := range a.Status() {
			if down := s.URL == urlOf("two"); down != (s.Err != nil) || down == s.Connected || down != !s.Next.IsZero() {
				t.Errorf("status %+v", s)
			}
		}
	})
}

// A peer that is not at its first home is found at its second.
func TestPoolGone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("one", 10*ms, relayserver.Config{})
		w.start("two", 20*ms, relayserver.Config{})
		w.start("three", 20*ms, relayserver.Config{})
		a, b := w.node("one"), w.node("two")
		a.knows(b, "one two")
		time.Sleep(5 * time.Second)
		a.say(b, "lost")
		time.Sleep(100 * ms)
		a.say(b, "found")
		time.Sleep(100 * ms)
		if got := b.heard(); got != "found" {
			t.Errorf("heard %q", got)
		}
		if n := a.Counters()["gone"]; n != 1 {
			t.Errorf("told %d times that it is gone", n)
		}
		if via := a.Via(b.id); via != urlOf("two") {
			t.Errorf("it goes via %s", via)
		}
		stranger := w.node("")
		a.say(stranger, "nobody")
		time.Sleep(time.Second)
		a.say(stranger, "nobody") // by server two, which a is connected to as well
		time.Sleep(time.Second / 2)
		if a.Reaches(stranger.id) || a.Via(stranger.id) != "" {
			t.Errorf("a node that is on no server is reached via %s", a.Via(stranger.id))
		}
		// It comes, and is heard: that ends it.
		stranger.SetServers(urlsOf("one"))
		time.Sleep(time.Second)
		stranger.say(a, "hello")
		time.Sleep(100 * ms)
		if !a.Reaches(stranger.id) {
			t.Error("a node that was just heard is not reached")
		}
	})
}

// Servers that refuse or are not who they should be are told of, once, and the next one is used.
func TestPoolRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("closed", 10*ms, relayserver.Config{AllowNetworks: []identity.PeerID{identity.New().ID()}})
		w.start("false", 10*ms, relayserver.Config{}).err = fmt.Errorf("connect: %w", relay.ErrPin)
		w.start("open", 30*ms, relayserver.Config{})
		a := w.node("closed false open")
		time.Sleep(10 * time.Minute)
		if homes := namesOf(a.Homes()); homes != "open" {
			t.Errorf("the homes are %q", homes)
		}
		told := a.told()
		for _, want := range []string{"refused closed", "refused false", "connected open", "homes changed open"} {
			if strings.Count(told, want) != 1 {
				t.Errorf("told %q, want %q once", told, want)
			}
		}
		for _, s := range a.Status() {
			want := map[string]error{"closed": relay.ErrPass, "false": relay.ErrPin}[namesOf([]string{s.URL})]
			if !errors.Is(s.Err, want) {
				t.Errorf("%s: %v, want %v", s.URL, s.Err, want)
			}
		}
	})
}

// A pass is asked for at each connection.
func TestPoolPass(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		seed := identity.NewSecret()
		w.start("one", 10*ms, relayserver.Config{AllowNetworks: []identity.PeerID{identity.FromSeed(seed).ID()}})
		a := w.node("one", func(cfg *relay.PoolConfig) {
			id := cfg.Identity.ID()
			cfg.Pass = func() []byte { return relay.NewPass(seed, id, time.Now().Add(time.Hour)) }
		})
		for range 30 {
			time.Sleep(10 * time.Minute)
			if up := a.up(); up != "one*" {
				t.Errorf("connected to %q", up)
			}
		}
		if n := a.Counters()["open_ok"]; n < 4 || n > 6 {
			t.Errorf("%d connections in 5 hours", n)
		}
	})
}

// What waits for a server that fails goes by another.
func TestPoolFails(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("two", 20*ms, relayserver.Config{})
		a, b := w.node(""), w.node("two")
		a.knows(b, "one two")
		time.Sleep(5 * time.Second)
		a.say(b, "a first datagram")
		time.Sleep(100 * ms)
		if got := b.heard(); got != "a first datagram" {
			t.Errorf("heard %q", got)
		}
	})
}

// What waits for a server that hangs goes by another.
func TestPoolHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("one", 10*ms, relayserver.Config{}).hangs = true
		w.start("two", 20*ms, relayserver.Config{})
		w.start("three", 20*ms, relayserver.Config{})
		a, b := w.node("three"), w.node("two")
		time.Sleep(5 * time.Second)
		a.knows(b, "one two")
		a.say(b, "not yet connected")
		time.Sleep(slow + 500*ms)
		if got := b.heard(); got != "not yet connected" {
			t.Errorf("heard %q", got)
		}
		c := w.node("one")
		a.knows(c, "one")
		a.say(c, "never")
		time.Sleep(time.Minute)
		n := a.Counters()
		if n["drop_waiting"]+n["drop_no_server"]+n["gone"] == 0 {
			t.Errorf("what could not be sent is not counted: %v", n)
		}
	})
}

// slow is how long a server is dialled before others are tried.
const slow = 2 * time.Second

// After a change of the link, dead connections are replaced at once, and nothing that waits has to wait longer.
func TestPoolLinkChanged(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("one", 10*ms, relayserver.Config{})
		a, b := w.node("one"), w.node("one")
		time.Sleep(5 * time.Second)
		before := a.told()
		outage, lost := stream(t, a, b, 10*time.Second, func() {
			w.each("one", (*wire).cut)
			a.LinkChanged()
			b.LinkChanged()
		})
		t.Logf("outage %v, %d lost", outage, lost)
		if outage > 500*ms {
			t.Errorf("the outage is %v", outage)
		}
		if up := a.up(); up != "one*" {
			t.Errorf("connected to %q", up)
		}
		if told := a.told(); told != "" {
			t.Errorf("told %q after %q", told, before)
		}
		w.start("two", 5*ms, relayserver.Config{}).hangs = true
		a.SetServers(urlsOf("one two"))
		time.Sleep(time.Second)
		w.hang("two", false)
		a.LinkChanged()
		time.Sleep(2 * time.Second)
		if up := a.up(); up != "two* one*" && up != "one* two*" {
			t.Errorf("connected to %q", up)
		}
	})
}

// Whatever happens at once, Send does not block.
func TestPoolSendNeverBlocks(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("one", 10*ms, relayserver.Config{}).hangs = true
		a := w.node("one")
		to := identity.New().ID()
		began := time.Now()
		var overflow bool
		for range 1000 {
			err := a.Send(to, [][]byte{make([]byte, 1200)}, false)
			overflow = overflow || errors.Is(err, relay.ErrOverflow)
			if err != nil && !errors.Is(err, relay.ErrOverflow) {
				t.Fatal(err)
			}
		}
		if !time.Now().Equal(began) {
			t.Error("it took time")
		}
		if !overflow || a.Counters()["drop_waiting"] < 700 {
			t.Errorf("overflow %v, counted %v", overflow, a.Counters())
		}
		for _, bad := range [][]byte{nil, make([]byte, relay.MaxDatagram+1)} {
			if err := a.Send(to, [][]byte{bad}, false); !errors.Is(err, relay.ErrDatagram) {
				t.Errorf("%d bytes: error %v", len(bad), err)
			}
		}
		if err := a.SetServers([]string{"https://one.example", "nonsense"}); !errors.Is(err, relay.ErrScheme) {
			t.Errorf("SetServers: %v", err)
		}
		if n := len(a.Status()); n != 1 {
			t.Errorf("%d servers", n)
		}
	})
}

// Two nodes with one key hear of each other.
func TestPoolUnwell(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start("one", 10*ms, relayserver.Config{})
		key := identity.New()
		same := func(cfg *relay.PoolConfig) { cfg.Identity = key }
		a := w.node("one", same)
		time.Sleep(5 * time.Second)
		a.LinkChanged() // no other node
		time.Sleep(5 * time.Second)
		if told := a.told(); strings.Contains(told, "unwell") {
			t.Errorf("told %q of itself", told)
		}
		w.node("one", same)
		time.Sleep(5 * time.Second)
		if told := a.told(); told != "unwell one" {
			t.Errorf("told %q", told)
		}
		if s := a.Status()[0]; s.Health == "" {
			t.Errorf("status %+v", s)
		}
	})
}

// A pool is quiet: without traffic it opens nothing, and only homes cost anything.
func TestPoolQuiet(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for name, latency := range map[string]time.Duration{"one": 10 * ms, "two": 20 * ms, "three": 30 * ms} {
			w.start(name, latency, relayserver.Config{})
		}
		a := w.node("three two one")
		time.Sleep(2 * time.Minute)
		opened := a.Counters()["open_ok"]
		if up := a.up(); up != "one* two*" || opened != 3 {
			t.Fatalf("connected to %q after %d connections", up, opened)
		}
		time.Sleep(20 * time.Minute)
		if n := a.Counters()["open_ok"]; n != opened {
			t.Errorf("%d more connections", n-opened)
		}
		if told := a.told(); strings.Count(told, "homes changed") != 1 || !strings.Contains(told, "homes changed one two") {
			t.Errorf("told %q", told)
		}
		for _, s := range a.Status()[:2] {
			if s.Latency < 10*ms || s.Latency > 25*ms || s.Since.IsZero() || s.Err != nil || !s.Own {
				t.Errorf("status %+v", s)
			}
		}
	})
}
