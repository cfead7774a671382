package relayserver_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
	"github.com/meshnet/meshnet/relay/relaytest"
)

// ends reads a stream until the server ends it, and returns how long that took and the last frame but keepalives.
func ends(t *testing.T, raw *relaytest.Raw) (took time.Duration, last relay.Type) {
	t.Helper()
	began := time.Now()
	reader := relay.NewReader(raw.Stream, make([]byte, 4096), relay.MaxMaxFrame)
	raw.SetReadDeadline(time.Time{})
	for {
		for f, ok := reader.Next(); ok; f, ok = reader.Next() {
			if f.Type != relay.TypeKeepAlive {
				last = f.Type
			}
		}
		if _, err := reader.Fill(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("stream ended with %v", err)
			}
			return time.Since(began), last
		}
	}
}

func within(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s after %v, want %v to %v", what, got, least, most)
	}
}

// TestIdle reaps a client that says nothing, and never one that answers keepalives.
func TestIdle(t *testing.T) {
	for _, idle := range []time.Duration{3 * time.Second, 60 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := startMemory(t, relayserver.Config{Idle: idle})
			lives := relaytest.Connect(t, r)
			silent := relaytest.ConnectRaw(t, r, identity.New())
			took, _ := ends(t, silent)
			within(t, "silent client reaped", took, idle*9/10, idle*11/10)
			time.Sleep(10 * time.Minute)
			if n := r.Server.Counters(); n["close_idle"] != 1 || n["sessions_live"] != 1 {
				t.Errorf("after ten minutes: %v", n)
			}
			lives.Close()
			synctest.Wait()
			if n := r.Server.Counters(); n["sessions_live"] != 0 {
				t.Errorf("at the end: %v", n)
			}
		})
	}
}

// TestIdleIsSilent counts what an idle client and its relay say to each other.
func TestIdleIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startMemory(t, relayserver.Config{})
		c := relaytest.Connect(t, r)
		time.Sleep(time.Second)
		before := c.Counters()["pings"]
		time.Sleep(time.Hour)
		if n := c.Counters()["pings"] - before; n > 3600/20 {
			t.Errorf("%d pings in an idle hour", n)
		}
	})
}

// TestHandshakeDeadline has clients that do not finish their handshake (slowloris).
func TestHandshakeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startMemory(t, relayserver.Config{})
		silent := relaytest.DialRaw(t, r)
		took, _ := ends(t, silent)
		within(t, "a client that says nothing ended", took, 9*time.Second, 11*time.Second)

		slow := relaytest.DialRaw(t, r)
		began := time.Now()
		hello := relay.AppendFrame(nil, relay.TypeClientHello, make([]byte, 200))
		slow.SetWriteDeadline(time.Time{})
		for i := range hello {
			if _, err := slow.Write(hello[i : i+1]); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		within(t, "a client that says a byte a second ended", time.Since(began), 9*time.Second, 12*time.Second)
	})
}

// TestHalfOpen opens far more streams than may be in their handshake; who proves its key gets in all the same.
func TestHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startMemory(t, relayserver.Config{})
		for range 1100 {
			relaytest.DialRaw(t, r)
		}
		relaytest.Connect(t, r)
		synctest.Wait()
		if n := r.Server.Counters(); n["refused_half_open"] != 1100-1024+1 || n["sessions_live"] != 1 {
			t.Errorf("counters: %v", n)
		}
	})
}

// TestPassGrace ends a connection ten minutes after its pass has expired.
func TestPassGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := identity.NewSecret()
		r := startMemory(t, relayserver.Config{AllowNetworks: []identity.PeerID{identity.FromSeed(seed).ID()}})
		pass := relay.NewPass(seed, identity.PeerID{}, time.Now().Add(time.Hour))
		began := time.Now()
		c := relaytest.Connect(t, r, func(cfg *relay.ClientConfig) { cfg.Pass = func() []byte { return pass } })
		time.Sleep(69 * time.Minute)
		if n := r.Server.Counters(); n["sessions_live"] != 1 {
			t.Fatalf("the client was ended early: %v", n)
		}
		time.Sleep(2 * time.Minute)
		if err := c.Ended(t); !errors.Is(err, relay.ErrPassExpired) {
			t.Errorf("client ended with %v", err)
		}
		within(t, "ended", time.Since(began), 70*time.Minute, 72*time.Minute)
	})
}

// TestReplacedSilent closes a connection that was replaced and says nothing.
func TestReplacedSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startMemory(t, relayserver.Config{})
		first := relaytest.Connect(t, r)
		began := time.Now()
		relaytest.Connect(t, r, func(cfg *relay.ClientConfig) { cfg.Identity = first.Key })
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if err := first.Ended(t); !errors.Is(err, relay.ErrReplaced) {
			t.Errorf("the first ended with %v", err)
		}
		within(t, "ended", time.Since(began), 10*time.Second, 16*time.Second)
		if n := r.Server.Counters(); n["close_replaced"] != 1 || n["sessions_live"] != 1 {
			t.Errorf("counters: %v", n)
		}
	})
}

// TestFlapping has two connections of one key that both send all the time: they take turns ever more seldom.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startMemory(t, relayserver.Config{})
		to, first := relaytest.Connect(t, r), relaytest.Connect(t, r)
		second := relaytest.Connect(t, r, func(cfg *relay.ClientConfig) { cfg.Identity = first.Key })
		const minutes = 10
		for range minutes * 60 * 10 {
			for _, n := range []*relaytest.Node{first, second} {
				if err := n.Send(to.ID, [][]byte{{1}}, false); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		n := r.Server.Counters()
		if got := n["active_takeovers"]; got < 6 || got > 6+minutes {
			t.Errorf("%d takeovers in %d minutes, want about %d", got, minutes, 6+minutes-1)
		}
		if n["forwarded_packets"] != minutes*60*10*2 || n["close_replaced"] != 0 {
			t.Errorf("counters: %v", n)
		}
	})
}

// TestThrottleMean reads at the rate in the mean, over a long time.
func TestThrottleMean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		r := startMemory(t, relayserver.Config{Rate: rate})
		to := relaytest.Connect(t, r)
		raw := relaytest.ConnectRaw(t, r, identity.New())
		raw.SetDeadline(time.Time{})
		go io.Copy(io.Discard, raw.Stream)
		frame := relay.AppendDatagram(nil, relay.TypeSend, to.ID, make([]byte, 16<<10))
		began, sent := time.Now(), 0
		for time.Since(began) < 100*time.Second {
			if _, err := raw.Write(frame); err != nil {
				t.Fatal(err)
			}
			sent += len(frame)
		}
		if mean := float64(sent) / time.Since(began).Seconds(); mean < 0.97*rate || mean > 1.03*rate {
			t.Errorf("%.0f bytes a second were read, want %d", mean, rate)
		}
	})
}
