package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// script is the server's end of a client's stream, which the test plays.
type script struct {
	net.Conn
	t      *testing.T
	reader *Reader
	client ClientHello
}

// play connects a client to a script that welcomes it.
func play(t *testing.T, cfg ClientConfig) (*Client, *script) {
	t.Helper()
	near, far := net.Pipe()
	s := &script{Conn: far, t: t, reader: NewReader(far, make([]byte, 1<<17), MaxMaxFrame)}
	cfg.Identity = seeded(1)
	exporter := filled(5)
	var wg sync.WaitGroup
	wg.Go(func() {
		hello := wireHello()
		hello.Nonces = false
		s.send(TypeServerHello, hello.Append(nil))
		f := s.next()
		s.client, _ = ParseClientHello(f.Payload())
		s.send(TypeWelcome, AppendWelcome(nil, netip.MustParseAddrPort("192.0.2.1:99")))
	})
	c, err := NewClient(t.Context(), Stream{Conn: near, Exporter: exporter[:]}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	t.Cleanup(func() { s.Close() })
	return c, s
}

func (s *script) send(typ Type, payload []byte) {
	if _, err := s.Write(AppendFrame(nil, typ, payload)); err != nil {
		s.t.Error(err)
	}
}

// next reads a frame; the zero one at the end.
func (s *script) next() Frame {
	for {
		if f, ok := s.reader.Next(); ok {
			return f
		}
		if _, err := s.reader.Fill(); err != nil {
			return Frame{}
		}
	}
}

// start has the client run, and returns how it ended.
func start(c *Client, ctx context.Context) (ended func() error) {
	result := make(chan error, 1)
	go func() { result <- c.Run(ctx) }()
	return func() error { return <-result }
}

// TestClientHello tells the server who it is, and learns where it is.
func TestClientHello(t *testing.T) {
	c, s := play(t, ClientConfig{Home: true, Pass: func() []byte { return []byte("a pass") }})
	exporter := filled(5)
	err := identity.Verify(s.client.Node, identity.PurposeRelayTLS, identity.NetworkID{}, exporter[:], s.client.Signature[:])
	if err != nil || s.client.Node != seeded(1).ID() || !s.client.Home || s.client.Kind != ProofExporter {
		t.Errorf("%+v: %v", s.client, err)
	}
	hello := wireHello()
	if c.Seen() != netip.MustParseAddrPort("192.0.2.1:99") || c.Server() != hello.Server || c.MaxFrame() != hello.MaxFrame ||
		c.STUNPort() != hello.STUNPort || !c.Home() {
		t.Errorf("seen %v, hello %+v", c.Seen(), c.hello)
	}
}

// TestClientRefused has a sentinel for every refusal, and closes the stream.
func TestClientRefused(t *testing.T) {
	for code, want := range map[Code]error{
		RefusedVersion: ErrVersion, RefusedProof: ErrProof, RefusedPass: ErrPass, RefusedExpired: ErrPassExpired,
		RefusedFull: ErrFull, RefusedProtocol: ErrRefused, 99: ErrRefused,
	} {
		near, far := net.Pipe()
		go func() {
			hello := wireHello()
			far.Write(AppendFrame(nil, TypeServerHello, hello.Append(nil)))
			io.ReadFull(far, make([]byte, HeaderLen+clientHelloLen))
			far.Write(AppendRefused(nil, code, "because"))
		}()
		_, err := NewClient(t.Context(), Stream{Conn: near}, ClientConfig{Identity: seeded(1)})
		if !errors.Is(err, want) {
			t.Errorf("code %d: %v", code, err)
		}
		if _, err := near.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("code %d: the stream is open: %v", code, err)
		}
	}
}

// TestClientProof chooses what to sign, and refuses when a pin rules a proxy out.
func TestClientProof(t *testing.T) {
	exporter := filled(5)
	for _, c := range []struct {
		name   string
		nonces bool
		stream Stream
		kind   ProofKind
		err    error
	}{
		{"TLS to the end", false, Stream{Exporter: exporter[:], Host: "a:1"}, ProofExporter, nil},
		{"pinned", true, Stream{Exporter: exporter[:], Host: "a:1", Pinned: true}, ProofExporter, nil},
		{"a known proxy", true, Stream{Exporter: exporter[:], Host: "a:1"}, ProofNonce, nil},
		{"no TLS of ours", true, Stream{Host: "a:1"}, ProofNonce, nil},
		{"an unknown proxy", false, Stream{Host: "a:1"}, 0, ErrProof},
		{"pinned, an unknown proxy", true, Stream{Host: "a:1", Pinned: true}, 0, ErrProof},
	} {
		client := Client{cfg: ClientConfig{Identity: seeded(1)}, stream: c.stream, hello: wireHello()}
		client.hello.Nonces = c.nonces
		var mine ClientHello
		err := client.prove(&mine)
		if !errors.Is(err, c.err) || mine.Kind != c.kind {
			t.Errorf("%s: kind %d, %v", c.name, mine.Kind, err)
		}
	}
}

// TestClientHandshakeDeadline gives a server up that does not finish the handshake.
func TestClientHandshakeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		began := time.Now()
		_, err := NewClient(t.Context(), Stream{Conn: near}, ClientConfig{Identity: seeded(1)})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != HandshakeTime {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		near, far2 := net.Pipe()
		defer far2.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = NewClient(ctx, Stream{Conn: near}, ClientConfig{Identity: seeded(1)})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// TestClientSendNeverBlocks sends to a relay that reads nothing, then lets it read: it gets the newest.
func TestClientSendNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := play(t, ClientConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := start(c, ctx)
		to := seeded(2).ID()
		full := 0
		const count = 20_000
		for i := range uint32(count) {
			pkt := binary.BigEndian.AppendUint32(nil, i)
			err := c.Send(to, [][]byte{append(pkt, make([]byte, 996)...)}, i%100 == 0)
			if errors.Is(err, ErrQueueFull) {
				full++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if n := c.box.Waiting(); full == 0 || n > queueBytes+urgentBytes {
			t.Fatalf("of %d datagrams %d did not fit, %d bytes wait", count, full, n)
		}
		arrived, last := 0, uint32(0)
		for last != count-1 {
			f := s.next()
			if f.Type == TypeSend {
				arrived, last = arrived+1, binary.BigEndian.Uint32(f.Payload()[AddrLen:])
			} else if f.Type == TypeSendUrgent {
				arrived++
			}
		}
		go func() {
			for s.next().Raw != nil {
			}
		}()
		cancel()
		ended()
		n := c.Counters()
		if n["drop_queue_full"]+n["sent_packets"] != count || int(n["sent_packets"]) < arrived {
			t.Errorf("%d arrived of %d: %v", arrived, count, n)
		}
		if err := c.Send(to, [][]byte{{1}}, false); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestClientTrains puts datagrams of one size into trains that fill a TLS record, and others into frames of their own.
func TestClientTrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := play(t, ClientConfig{})
		var pkts [][]byte
		for i, n := range []int{100, 100, 100, 40, 200, 201, 20_000, 7, 7} {
			pkts = append(pkts, bytes.Repeat([]byte{byte(i + 1)}, n))
		}
		for range 30 {
			pkts = append(pkts, bytes.Repeat([]byte{9}, 1452))
		}
		to := seeded(2).ID()
		if err := c.Send(to, pkts, false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := start(c, ctx)
		var got [][]byte
		var trains []int
		for len(got) < len(pkts) {
			f := s.next()
			if f.Type == TypePing {
				continue
			}
			data, size, err := Datagrams(f.Type, f.Payload())
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for ; len(data) > 0; n++ {
				got = append(got, bytes.Clone(data[:min(size, len(data))]))
				data = data[min(size, len(data)):]
			}
			trains = append(trains, n)
			if n > 1 && len(f.Raw) > 16<<10 {
				t.Errorf("a train of %d bytes", len(f.Raw))
			}
		}
		for i := range pkts {
			if !bytes.Equal(got[i], pkts[i]) {
				t.Fatalf("datagram %d is wrong", i)
			}
		}
		want := []int{4, 1, 1, 1, 2, 11, 11, 8}
		if len(trains) != len(want) {
			t.Fatalf("trains of %v, want %v", trains, want)
		}
		for i := range want {
			if trains[i] != want[i] {
				t.Fatalf("trains of %v, want %v", trains, want)
			}
		}
		cancel()
		s.Close()
		ended()
	})
}

// TestClientDeliverLends gives no buffer away twice, and drops while too many are lent.
func TestClientDeliverLends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type lent struct {
			batch []datagram.Relayed
			done  func()
		}
		var mu sync.Mutex
		var held []lent
		c, s := play(t, ClientConfig{Deliver: func(batch []datagram.Relayed, done func()) {
			mu.Lock()
			defer mu.Unlock()
			held = append(held, lent{batch, done})
		}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := start(c, ctx)
		go func() {
			for s.next().Raw != nil {
			}
		}()
		from := seeded(3).ID()
		for i := range 100 {
			s.Write(AppendDatagram(nil, TypeRecv, from, bytes.Repeat([]byte{byte(i)}, 1000)))
			synctest.Wait()
		}
		if len(held) != maxLent {
			t.Fatalf("%d deliveries are lent, want %d", len(held), maxLent)
		}
		for i, l := range held {
			if len(l.batch) != 1 || l.batch[0].From != from || !bytes.Equal(l.batch[0].Data, bytes.Repeat([]byte{byte(i)}, 1000)) {
				t.Fatalf("delivery %d changed while it was lent", i)
			}
			l.done()
		}
		if n := c.Counters(); n["drop_undelivered"] != 100-maxLent || n["received_packets"] != maxLent {
			t.Errorf("counters: %v", n)
		}
		held = nil
		s.Write(AppendDatagram(nil, TypeRecvUrgent, from, []byte("again")))
		synctest.Wait()
		if len(held) != 1 || string(held[0].batch[0].Data) != "again" {
			t.Fatalf("%d deliveries after all were done", len(held))
		}
		held[0].done()
		cancel()
		ended()
	})
}

// TestClientEnds has Run say why the connection ended.
func TestClientEnds(t *testing.T) {
	me := seeded(1).ID()
	for _, c := range []struct {
		name string
		end  func(*script)
		want error
	}{
		{"restart", func(s *script) { s.Write(AppendRestarting(nil, time.Second, time.Minute)) }, ErrRestarting},
		{"replaced", func(s *script) { s.Write(AppendGone(nil, me, GoneReplaced)) }, ErrReplaced},
		{"pass", func(s *script) { s.Write(AppendRefused(nil, RefusedExpired, "")) }, ErrPassExpired},
		{"end", func(s *script) { s.Close() }, io.EOF},
		{"too long", func(s *script) { s.Write([]byte{0x12, 0xff, 0xff, 0xff, 0xff}) }, ErrTooLong},
		{"nonsense", func(s *script) { s.send(TypeGone, nil) }, ErrMalformed},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl, s := play(t, ClientConfig{})
			ended := start(cl, t.Context())
			go func() {
				for s.next().Raw != nil {
				}
			}()
			synctest.Wait() // nothing is being written
			c.end(s)
			if err := ended(); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		})
	}
}

// TestClientSilent gives a relay up that does not answer: within seconds while something is sent.
func TestClientSilent(t *testing.T) {
	for _, busy := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c, s := play(t, ClientConfig{})
			began := time.Now()
			ended := start(c, t.Context())
			go func() {
				for s.next().Raw != nil {
				}
			}()
			var wg sync.WaitGroup
			if busy {
				wg.Go(func() {
					for c.Send(seeded(2).ID(), [][]byte{{1}}, false) == nil {
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
			if err := ended(); !errors.Is(err, ErrSilent) {
				t.Errorf("ended with %v", err)
			}
			wg.Wait()
			most := 10 * time.Second
			if !busy {
				most = time.Minute
			}
			if took := time.Since(began); took > most || !busy && took < 25*time.Second {
				t.Errorf("busy %v: given up after %v", busy, took)
			}
		})
	}
}

// TestHeart judges one moment at a time.
func TestHeart(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	h := heart{keepAlive: 25 * time.Second}
	for i, step := range []struct {
		now, heard, wrote float64
		want              verdict
	}{
		{1, 0, 0, rest},
		{3, 0, 2.9, ask},    // sent, and nothing heard for a while
		{4, 0, 3.9, rest},   // the answer is due
		{5, 4.5, 4.9, rest}, // it came
		{20, 4.5, 4.9, rest},
		{30, 4.5, 4.9, ask}, // said nothing for long
		{31, 30.1, 30, rest},
		{60, 59, 33, ask},
		{61, 60.5, 60, rest},
		{80, 60.5, 60, rest},
		{99, 60.5, 80, ask},
		{101, 60.5, 99, rest},
		{102, 60.5, 99, dead},
	} {
		if got := h.beat(at(step.now), at(step.heard), at(step.wrote)); got != step.want {
			t.Errorf("step %d: verdict %d, want %d", i, got, step.want)
		}
	}
}
