package relaytest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// testLengths announces frames of the greatest length, and of greater ones.
func testLengths(t *testing.T, start Start) {
	const maxFrame = 4096
	r := start(t, relayserver.Config{MaxFrame: maxFrame})
	b := Connect(t, r)
	fits := ConnectRaw(t, r, identity.New())
	fits.Send(t, relay.TypeSend, append(b.ID[:], make([]byte, maxFrame-relay.AddrLen)...))
	if got := b.Await(t, 1)[0].Data; len(got) != maxFrame-relay.AddrLen {
		t.Errorf("of the greatest frame %d bytes arrived", len(got))
	}
	fits.Send(t, relay.TypeKeepAlive, nil)
	fits.Send(t, 0x7f, nil)
	fits.Send(t, relay.TypePing, make([]byte, 8))
	for fits.Next(t).Type != relay.TypePong {
	}
	for i, n := range []uint32{maxFrame + 1, 1 << 31, 1<<32 - 1} {
		raw := ConnectRaw(t, r, identity.New())
		raw.write(t, binary.BigEndian.AppendUint32([]byte{byte(relay.TypeSend)}, n))
		raw.Ends(t)
		Until(t, func() bool { return r.Server.Counters()["close_too_long"] == uint64(i+1) })
	}
	before := DialRaw(t, r)
	before.write(t, binary.BigEndian.AppendUint32([]byte{byte(relay.TypeClientHello)}, relay.MaxHello+1))
	if last := before.Ends(t); last != relay.TypeRefused {
		t.Errorf("a hello that is too long was answered by %#x", last)
	}
}

// testMalformed sends frames that are too short, which cost nothing but themselves.
func testMalformed(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	b := Connect(t, r)
	raw := ConnectRaw(t, r, identity.New())
	bad := 0
	for _, typ := range []relay.Type{relay.TypeSend, relay.TypeSendUrgent, relay.TypeSendTrain} {
		for _, p := range [][]byte{nil, {1}, b.ID[:31], b.ID[:]} {
			raw.Send(t, typ, p)
			bad++
		}
	}
	for _, tail := range []string{"\x00", "\x00\x05", "\x00\x00data"} {
		raw.Send(t, relay.TypeSendTrain, append(bytes.Clone(b.ID[:]), tail...))
		bad++
	}
	raw.Send(t, relay.TypeSend, append(bytes.Clone(b.ID[:]), "good"...))
	if got := b.Await(t, 1); string(got[0].Data) != "good" || got[0].From != raw.ID {
		t.Errorf("after malformed frames came %q", got[0].Data)
	}
	if n := r.Server.Counters()["drop_malformed"]; n != uint64(bad) {
		t.Errorf("%d malformed frames were counted, want %d", n, bad)
	}
}

// testGarbage writes random bytes, some of which are frames; others do not notice.
func testGarbage(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	a, b := Connect(t, r), Connect(t, r)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 100 {
		raw := ConnectRaw(t, r, identity.New())
		go io.Copy(io.Discard, raw.Stream)
		raw.SetWriteDeadline(time.Now().Add(patience))
		for range 50 {
			garbage := make([]byte, random.IntN(300))
			for k := range garbage {
				garbage[k] = byte(random.Uint32())
			}
			if random.IntN(50) > 0 {
				garbage = relay.AppendFrame(nil, relay.Type(0x10+random.IntN(6)), append(b.ID[:], garbage...))
			}
			if _, err := raw.Write(garbage); err != nil {
				break // the server had enough
			}
		}
		raw.Close()
		if err := a.Send(b.ID, [][]byte{[]byte("alive")}, false); err != nil {
			t.Fatal(err)
		}
		Until(t, func() bool { return from(b, a.ID) == i+1 })
	}
	Until(t, func() bool { return r.Server.Stats().Live == 2 })
}

// from counts what a node got from another.
func from(n *Node, id identity.PeerID) (count int) {
	for _, got := range n.Got() {
		if got.From == id {
			count++
		}
	}
	return count
}

// testUnknownTypes skips what a later version may say.
func testUnknownTypes(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	b := Connect(t, r)
	raw := ConnectRaw(t, r, identity.New())
	for i := range 20 {
		raw.Send(t, relay.Type(0x60+i), make([]byte, i*1000))
		raw.Send(t, relay.TypeSend, append(bytes.Clone(b.ID[:]), byte(i)))
	}
	for i, got := range b.Await(t, 20) {
		if len(got.Data) != 1 || got.Data[0] != byte(i) {
			t.Errorf("datagram %d is %x", i, got.Data)
		}
	}
	if n := r.Server.Counters()["skip_unknown_type"]; n != 20 {
		t.Errorf("%d unknown frames were counted", n)
	}
}

// testWrongProof presents a proof of another TLS session, and of another key.
func testWrongProof(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	foreign := Relay{Server: r.Server, Dial: func(ctx context.Context) (relay.Stream, error) {
		stream, err := r.Dial(ctx)
		stream.Exporter = make([]byte, relay.ExporterLen)
		return stream, err
	}}
	if _, err := TryConnect(t, foreign); !errors.Is(err, relay.ErrProof) {
		t.Errorf("another session's proof: %v", err)
	}
	none := Relay{Server: r.Server, Dial: func(ctx context.Context) (relay.Stream, error) {
		stream, err := r.Dial(ctx)
		stream.Exporter = nil
		return stream, err
	}}
	if _, err := TryConnect(t, none); !errors.Is(err, relay.ErrProof) {
		t.Errorf("no proof: %v", err)
	}
	raw := DialRaw(t, r)
	hello := relay.ClientHello{Version: relay.Version, Node: identity.New().ID()}
	copy(hello.Signature[:], identity.New().Sign(identity.PurposeRelayTLS, identity.NetworkID{}, raw.Exporter))
	raw.Send(t, relay.TypeClientHello, hello.Append(nil))
	if last := raw.Ends(t); last != relay.TypeRefused {
		t.Errorf("another key's proof was answered by %#x", last)
	}
	Until(t, func() bool { return r.Server.Counters()["refused_proof"] == 2 })
	if s := r.Server.Stats(); s.Opened != 0 {
		t.Errorf("sessions: %+v", s)
	}
}

// testWrongHello begins in other ways than the protocol's.
func testWrongHello(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	hello := relay.ClientHello{Version: relay.Version + 1, Node: identity.New().ID()}
	for _, c := range []struct {
		name    string
		typ     relay.Type
		payload []byte
		code    relay.Code
	}{
		{"another version", relay.TypeClientHello, hello.Append(nil), relay.RefusedVersion},
		{"a short hello", relay.TypeClientHello, []byte{relay.Version}, relay.RefusedProtocol},
		{"data", relay.TypeSend, make([]byte, 100), relay.RefusedProtocol},
		{"a pass that is cut", relay.TypeClientHello, append(make([]byte, 99), 0xff, 0xff), relay.RefusedProtocol},
	} {
		raw := DialRaw(t, r)
		raw.Send(t, c.typ, c.payload)
		f := raw.Next(t)
		if f.Type != relay.TypeRefused {
			t.Fatalf("%s: answered by %#x", c.name, f.Type)
		}
		if code, _, err := relay.ParseRefused(f.Payload()); code != c.code || err != nil {
			t.Errorf("%s: refused with %d, want %d", c.name, code, c.code)
		}
		raw.Ends(t)
	}
}

// testFull has no room for a second client.
func testFull(t *testing.T, start Start) {
	r := start(t, relayserver.Config{MaxClients: 1})
	a := Connect(t, r)
	if _, err := TryConnect(t, r); !errors.Is(err, relay.ErrFull) {
		t.Errorf("one client too many: %v", err)
	}
	a.Close()
	Until(t, func() bool { return r.Server.Stats().Live == 0 })
	Connect(t, r)
}

// testPasses admits who has a pass.
func testPasses(t *testing.T, start Start) {
	seed, old, other := identity.NewSecret(), identity.NewSecret(), identity.NewSecret()
	allowed := []identity.PeerID{identity.FromSeed(old).ID(), identity.FromSeed(seed).ID()}
	r := start(t, relayserver.Config{AllowNetworks: allowed})
	me := identity.New()
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Second)
	spoiled := relay.NewPass(seed, me.ID(), soon)
	spoiled[len(spoiled)-1] ^= 1
	for _, c := range []struct {
		name string
		pass []byte
		want error
	}{
		{"its own", relay.NewPass(seed, me.ID(), soon), nil},
		{"anybody's", relay.NewPass(seed, identity.PeerID{}, soon), nil},
		{"of the key before", relay.NewPass(old, me.ID(), soon), nil},
		{"none", nil, relay.ErrPass},
		{"not one", []byte("pass"), relay.ErrPass},
		{"of another network", relay.NewPass(other, me.ID(), soon), relay.ErrPass},
		{"of another node", relay.NewPass(seed, identity.New().ID(), soon), relay.ErrPass},
		{"with a wrong signature", spoiled, relay.ErrPass},
		{"expired", relay.NewPass(seed, me.ID(), past), relay.ErrPassExpired},
	} {
		n, err := TryConnect(t, r, func(cfg *relay.ClientConfig) {
			cfg.Identity = me
			cfg.Pass = func() []byte { return c.pass }
		})
		if !errors.Is(err, c.want) {
			t.Errorf("pass %s: %v, want %v", c.name, err, c.want)
		}
		if err == nil {
			n.Close()
		}
	}
	r.Server.Allow(nil)
	Connect(t, r)
}
