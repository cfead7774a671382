package netlab

import (
	"io"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// lineWorld is two hosts on a line.
func lineWorld(t *testing.T, line Line) (a, b *Host, ia, ib *Iface) {
	t.Helper()
	lab := New(t)
	a, b = lab.Host("a"), lab.Host("b")
	ia, ib = a.LineCable(b, "10.1.0.1/24", "10.1.0.2/24", line)
	return a, b, ia, ib
}

func TestLineDelay(t *testing.T) {
	a, _, ia, _ := lineWorld(t, Line{Delay: 20 * time.Millisecond})
	target := netip.MustParseAddr("10.1.0.2")
	ping := func() time.Duration {
		t.Helper()
		rtt, err := a.Ping(within(t, soon), target)
		if err != nil {
			t.Fatal(err)
		}
		return rtt
	}
	ping() // with ARP, which is delayed as well
	if rtt := ping(); rtt < 40*time.Millisecond || rtt > 80*time.Millisecond {
		t.Errorf("round trip %v, want a little over 40ms", rtt)
	}
	ia.SetLine(Line{})
	if rtt := ping(); rtt > 20*time.Millisecond {
		t.Errorf("round trip %v without delay", rtt)
	}
}

func TestLineLoss(t *testing.T) {
	a, b, ia, _ := lineWorld(t, Line{Seed: 1})
	from, to := listenUDP(t, a, "10.1.0.1:7000"), listenUDP(t, b, "10.1.0.2:7001")
	sendUDP(t, from, "10.1.0.2:7001", []byte("first"))
	if got, _ := recvUDP(t, to, soon); got != "first" {
		t.Fatalf("got %q", got)
	}
	ia.SetLine(Line{Loss: 0.3, Seed: 1})
	const sent = 500
	for range sent {
		sendUDP(t, from, "10.1.0.2:7001", []byte("numbered"))
	}
	got := 0
	for text, _ := recvUDP(t, to, soon); text != ""; text, _ = recvUDP(t, to, never) {
		got++
	}
	if got < sent*6/10 || got > sent*8/10 {
		t.Errorf("%d of %d arrived, want about %d", got, sent, sent*7/10)
	}
}

// 2000 packets per second pass without loss, in order.
func TestLineStream(t *testing.T) {
	a, b, _, _ := lineWorld(t, Line{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond})
	from, to := listenUDP(t, a, "10.1.0.1:7000"), listenUDP(t, b, "10.1.0.2:7001")
	const sent = 1000
	go func() { // ends with the last packet, which is awaited
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range sent {
			if i%2 == 0 {
				<-tick.C
			}
			from.WriteTo([]byte(strconv.Itoa(i)), to.LocalAddr())
		}
	}()
	for i := range sent {
		if got, _ := recvUDP(t, to, soon); got != strconv.Itoa(i) {
			t.Fatalf("got %q, want %d", got, i)
		}
	}
}

// A line carries TCP at its rate, and without one as fast as the program's own process can.
func TestLineRate(t *testing.T) {
	for _, tt := range []struct {
		line     Line
		size     int64
		min, max float64 // Mbit/s
	}{
		{Line{Rate: 20_000_000}, 2 << 20, 10, 22},
		{Line{Delay: 2 * time.Millisecond}, 16 << 20, 50, 1e6},
	} {
		a, b, _, _ := lineWorld(t, tt.line)
		ln, err := b.Listen("tcp", "10.1.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		received := make(chan int64, 1)
		go func() { // ends with the connection
			c, err := ln.Accept()
			if err != nil {
				received <- 0
				return
			}
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			received <- n
		}()
		c, err := a.Dial(within(t, soon), "tcp", "10.1.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(30 * time.Second))
		start := time.Now()
		if _, err := io.Copy(c, io.LimitReader(zeros{}, tt.size)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if n := <-received; n != tt.size {
			t.Fatalf("%d of %d bytes arrived", n, tt.size)
		}
		rate := float64(tt.size*8) / 1e6 / time.Since(start).Seconds()
		t.Logf("%+v: %.0f Mbit/s", tt.line, rate)
		if rate < tt.min || rate > tt.max {
			t.Errorf("%+v: %.1f Mbit/s, want %v to %v", tt.line, rate, tt.min, tt.max)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// A line's card behaves like others when it is pulled, switched off, cut or removed.
func TestLineStates(t *testing.T) {
	a, _, ia, ib := lineWorld(t, Line{Delay: time.Millisecond})
	target := netip.MustParseAddr("10.1.0.2")
	reach := func(what string, want bool) {
		t.Helper()
		wait := soon
		if !want {
			wait = never
		}
		if _, err := a.PingUntil(within(t, wait), target); (err == nil) != want {
			t.Errorf("%s: %v, want reachable %v", what, err, want)
		}
	}
	reach("at first", true)
	ia.Unplug()
	reach("unplugged", false)
	ia.Replug()
	reach("replugged", true)
	ib.SetDown()
	reach("far end down", false)
	ib.SetUp()
	reach("far end up", true)
	ia.Cut()
	reach("cut", false)
	ia.Mend()
	reach("mended", true)
	ia.SetMTU(1280)
	reach("with a smaller MTU", true)
	ia.Remove()
	reach("removed", false)
}

// A site's line is that of its router, and of every host where there is none.
func TestSiteLine(t *testing.T) {
	w := New(t).Internet()
	relay := w.Public("relay")
	for _, kind := range []Kind{None, PortRestricted, CGNAT} {
		h := w.AddSite(SiteConfig{Kind: kind, Line: Line{Delay: 15 * time.Millisecond, MTU: 1400}}).Host("inside")
		to := relay.Card().Addr4()
		if _, err := h.PingUntil(within(t, soon), to); err != nil {
			t.Fatalf("%v: %v", kind, err)
		}
		if rtt, err := h.Ping(within(t, soon), to); err != nil || rtt < 30*time.Millisecond || rtt > 60*time.Millisecond {
			t.Errorf("%v: round trip %v, %v, want a little over 30ms", kind, rtt, err)
		}
	}
}

// Nothing of a line runs on when its world has ended, not even with frames under way.
func TestLineEnds(t *testing.T) {
	t.Run("world", func(t *testing.T) {
		a, _, _, _ := lineWorld(t, Line{Delay: time.Hour})
		sendUDP(t, openUDP(t, a, true), "10.1.0.2:9", []byte("under way for an hour"))
	})
	stacks := make([]byte, 1<<20)
	if s := string(stacks[:runtime.Stack(stacks, true)]); strings.Contains(s, "(*hop)") {
		t.Errorf("still running:\n%s", s)
	}
}
