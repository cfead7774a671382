package relay

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/meshnet/meshnet/identity"
)

var update = flag.Bool("update", false, "write testdata/frames.txt anew")

// seeded is an identity whose seed is n, n, ….
func seeded(n byte) *identity.Identity {
	return identity.FromSeed(identity.Secret(bytes.Repeat([]byte{n}, 32)))
}

// filled is n, n, ….
func filled(n byte) (b [32]byte) {
	copy(b[:], bytes.Repeat([]byte{n}, 32))
	return b
}

func wireHello() ServerHello {
	return ServerHello{
		Version: Version, Nonces: true, KeepAlive: 25 * time.Second, MaxFrame: DefaultMaxFrame,
		Server: ServerID(bytes.Repeat([]byte{2}, 16)), Nonce: filled(3), STUNPort: 3478,
	}
}

func clientHello() ClientHello {
	me := seeded(4)
	exporter := filled(5)
	h := ClientHello{Version: Version, Node: me.ID(), Home: true}
	copy(h.Signature[:], me.Sign(identity.PurposeRelayTLS, identity.NetworkID{}, exporter[:]))
	h.Pass = NewPass(identity.Secret(filled(6)), me.ID(), time.Unix(2_000_000_000, 0))
	return h
}

// TestVectors compares all that goes over the wire with testdata/frames.txt.
func TestVectors(t *testing.T) {
	server, client := wireHello(), clientHello()
	to := seeded(7).ID()
	nonce := NonceBody("relay.example:443", filled(8), filled(9))
	train := AppendTrainHeader(nil, TypeSendTrain, to, 3, 7)
	var out strings.Builder
	for _, v := range []struct {
		name string
		wire []byte
	}{
		{"server-hello", AppendFrame(nil, TypeServerHello, server.Append(nil))},
		{"client-hello", AppendFrame(nil, TypeClientHello, client.Append(nil))},
		{"pass", client.Pass},
		{"nonce-body", nonce},
		{"nonce-signature", seeded(4).Sign(identity.PurposeRelayNonce, identity.NetworkID{}, nonce)},
		{"welcome-v4", AppendFrame(nil, TypeWelcome, AppendWelcome(nil, netip.MustParseAddrPort("192.0.2.1:4711")))},
		{"welcome-v6", AppendFrame(nil, TypeWelcome, AppendWelcome(nil, netip.MustParseAddrPort("[2001:db8::1]:4711")))},
		{"welcome-none", AppendFrame(nil, TypeWelcome, AppendWelcome(nil, netip.AddrPort{}))},
		{"refused", AppendRefused(nil, RefusedPass, "no pass")},
		{"send", AppendDatagram(nil, TypeSend, to, []byte("hello"))},
		{"send-train", append(train, "abcdefg"...)},
		{"keepalive", AppendFrame(nil, TypeKeepAlive, nil)},
		{"ping", AppendFrame(nil, TypePing, []byte("12345678"))},
		{"gone", AppendGone(nil, to, GoneLeft)},
		{"restarting", AppendRestarting(nil, 1500*time.Millisecond, 30*time.Second)},
		{"health", AppendFrame(nil, TypeHealth, []byte("all is well"))},
	} {
		fmt.Fprintf(&out, "%s %x\n", v.name, v.wire)
	}
	const file = "testdata/frames.txt"
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, old := strings.Split(out.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(got), len(old)) {
		if i >= len(got) || i >= len(old) || got[i] != old[i] {
			t.Fatalf("line %d differs", i+1)
		}
	}
}

// TestHellos reads what was written.
func TestHellos(t *testing.T) {
	server, client := wireHello(), clientHello()
	if got, err := ParseServerHello(server.Append(nil)); err != nil || got != server {
		t.Errorf("%+v: %v", got, err)
	}
	got, err := ParseClientHello(client.Append(nil))
	if err != nil || got.Node != client.Node || got.Home != client.Home || got.Signature != client.Signature ||
		!bytes.Equal(got.Pass, client.Pass) {
		t.Errorf("%+v: %v", got, err)
	}
	for n := range len(server.Append(nil)) {
		if _, err := ParseServerHello(server.Append(nil)[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of a server's hello: %v", n, err)
		}
	}
	for n := range len(client.Append(nil)) {
		if _, err := ParseClientHello(client.Append(nil)[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of a client's hello: %v", n, err)
		}
	}
	for _, maxFrame := range []uint32{0, MinMaxFrame - 1, MaxMaxFrame + 1, 1<<32 - 1} {
		b := server.Append(nil)
		binary.BigEndian.PutUint32(b[4:], maxFrame)
		if _, err := ParseServerHello(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("greatest frame %d: %v", maxFrame, err)
		}
	}
	for _, text := range []string{"192.0.2.1:4711", "[2001:db8::1]:4711", "[::]:1"} {
		want := netip.MustParseAddrPort(text)
		if got, err := ParseWelcome(AppendWelcome(nil, want)); err != nil || got != want {
			t.Errorf("%v became %v: %v", want, got, err)
		}
	}
	if got, err := ParseWelcome(AppendWelcome(nil, netip.AddrPort{})); err != nil || got.IsValid() {
		t.Errorf("no address became %v: %v", got, err)
	}
}

// TestForeignText keeps what a server says printable and short.
func TestForeignText(t *testing.T) {
	for in, want := range map[string]string{
		"all is well": "all is well", "a\x1b[2Jb\nc\x00": "a[2Jbc", "\xff\xfeok": "ok", "größer": "größer",
		strings.Repeat("x", 1000): strings.Repeat("x", maxText),
	} {
		if got := foreignText([]byte(in)); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// randomFrames is a stream of frames and what it should be read as.
func randomFrames(random *rand.Rand, n, longest int) (stream []byte, frames [][]byte) {
	for range n {
		size := random.IntN(min(200, longest+1))
		if random.IntN(10) == 0 {
			size = random.IntN(longest + 1)
		}
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(random.Uint32())
		}
		frame := AppendFrame(nil, Type(random.Uint32()), payload)
		stream, frames = append(stream, frame...), append(frames, frame)
	}
	return stream, frames
}

// chopped reads a stream in random pieces.
type chopped struct {
	rest   []byte
	random *rand.Rand
}

func (c *chopped) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.random.IntN(3000))], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// TestReader reads random streams in random pieces with buffers of random sizes, which change meanwhile.
func TestReader(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		longest := 1 + random.IntN(20_000)
		stream, frames := randomFrames(random, 100, longest)
		r := NewReader(&chopped{stream, random}, make([]byte, HeaderLen+random.IntN(5000)), longest)
		var err error
		for err == nil {
			for f, ok := r.Next(); ok; f, ok = r.Next() {
				if len(frames) == 0 || !bytes.Equal(f.Raw, frames[0]) || f.Type != Type(f.Raw[0]) {
					t.Fatalf("seed %d: a frame of %d bytes is wrong, %d before the end", seed, len(f.Raw), len(frames))
				}
				if end := r.Offset(); !bytes.Equal(r.Span(end-len(f.Raw), end), f.Raw) {
					t.Fatalf("seed %d: a frame does not end at the offset", seed)
				}
				frames = frames[1:]
			}
			if random.IntN(5) == 0 {
				r.SetBuffer(make([]byte, HeaderLen+random.IntN(9000)))
			}
			_, err = r.Fill()
		}
		if !errors.Is(err, io.EOF) || len(frames) > 0 || r.Buffered() != 0 {
			t.Fatalf("seed %d: %v with %d frames and %d bytes left", seed, err, len(frames), r.Buffered())
		}
	}
}

// TestReaderLengths takes the greatest length, and nothing for a greater one.
func TestReaderLengths(t *testing.T) {
	const longest = 1000
	for _, c := range []struct {
		length uint32
		err    error
	}{{0, nil}, {longest, nil}, {longest + 1, ErrTooLong}, {1<<31 - 1, ErrTooLong}, {1<<32 - 1, ErrTooLong}} {
		stream := binary.BigEndian.AppendUint32([]byte{byte(TypeSend)}, c.length)
		if c.err == nil {
			stream = append(stream, make([]byte, c.length)...)
		}
		r := NewReader(iotest.OneByteReader(bytes.NewReader(stream)), make([]byte, HeaderLen), longest)
		var got Frame
		var err error
		for ok := false; !ok && err == nil; got, ok = r.Next() {
			_, err = r.Fill()
		}
		if c.err == nil && len(got.Raw) != HeaderLen+int(c.length) {
			t.Errorf("length %d gave a frame of %d bytes: %v", c.length, len(got.Raw), err)
		}
		if c.err != nil {
			if _, err = r.Fill(); !errors.Is(err, c.err) || len(r.Buffer()) > HeaderLen || got.Raw != nil {
				t.Errorf("length %d: %v with a buffer of %d bytes", c.length, err, len(r.Buffer()))
			}
		}
	}
	if _, err := NewReader(emptyReader{}, make([]byte, 10), 10).Fill(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a stream that never brings anything: %v", err)
	}
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

// TestReaderBelievesSlowly does not allocate what a length announces before the bytes come.
func TestReaderBelievesSlowly(t *testing.T) {
	stream := binary.BigEndian.AppendUint32([]byte{byte(TypeSend)}, MaxMaxFrame)
	r := NewReader(bytes.NewReader(append(stream, make([]byte, 1000)...)), make([]byte, 512), MaxMaxFrame)
	var err error
	for err == nil {
		_, err = r.Fill()
	}
	if n := len(r.Buffer()); n > 4096 {
		t.Errorf("%d bytes were allocated for 1005", n)
	}
}

// FuzzFrames reads any stream: it never gives what is not there, and what parses is encoded as it was.
func FuzzFrames(f *testing.F) {
	data, err := os.ReadFile("testdata/frames.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if _, hexed, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			wire, _ := hex.DecodeString(hexed)
			f.Add(wire)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream), make([]byte, 64), 1<<16)
		var out []byte
		var err error
		for err == nil {
			for frame, ok := r.Next(); ok; frame, ok = r.Next() {
				out = AppendFrame(out, frame.Type, frame.Payload())
				reencode(t, frame)
			}
			_, err = r.Fill()
		}
		if !bytes.Equal(out, stream[:len(out)]) || len(out)+r.Buffered() > len(stream) {
			t.Fatal("the frames are not the stream")
		}
	})
}

// reencode compares a payload that parses with what is written for it. What follows the known part is ignored.
func reencode(t *testing.T, f Frame) {
	p := f.Payload()
	var out []byte
	switch f.Type {
	case TypeServerHello:
		if h, err := ParseServerHello(p); err == nil {
			p[1] &= flagNonce
			out = h.Append(nil)
		}
	case TypeClientHello:
		if h, err := ParseClientHello(p); err == nil {
			p[34] &= flagHome
			out = h.Append(nil)
			if pass, err := ParsePass(h.Pass); err == nil && !bytes.Equal(pass.Append(nil), h.Pass) {
				t.Fatal("a pass is written otherwise than it was read")
			}
		}
	case TypeWelcome:
		if seen, err := ParseWelcome(p); err == nil {
			out = AppendWelcome(nil, seen)
			p[0] = 0
		}
	case TypeGone:
		if node, reason, err := ParseGone(p); err == nil {
			out = AppendGone(nil, node, reason)[HeaderLen:]
		}
	case TypeRestarting:
		if in, try, err := ParseRestarting(p); err == nil {
			out = AppendRestarting(nil, in, try)[HeaderLen:]
		}
	case TypeRefused:
		ParseRefused(p)
	default:
		out = reencodeData(f.Type, p)
	}
	if len(out) > len(p) || !bytes.Equal(out, p[:len(out)]) {
		t.Fatalf("type %#x: %x is written as %x", f.Type, p, out)
	}
}

func reencodeData(typ Type, p []byte) []byte {
	switch typ {
	case TypeSend, TypeSendUrgent, TypeRecv, TypeRecvUrgent:
		if data, size, err := Datagrams(typ, p); err == nil && len(data) == size {
			return AppendDatagram(nil, typ, identity.PeerID(p[:AddrLen]), data)[HeaderLen:]
		}
	case TypeSendTrain, TypeRecvTrain:
		if data, size, err := Datagrams(typ, p); err == nil {
			head := AppendTrainHeader(nil, typ, identity.PeerID(p[:AddrLen]), size, len(data))
			return append(head, data...)[HeaderLen:]
		}
	}
	return nil
}
