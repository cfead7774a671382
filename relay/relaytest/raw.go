package relaytest

import (
	"context"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
)

// Raw is a stream on which a test reads and writes frames by itself.
type Raw struct {
	relay.Stream
	ID     identity.PeerID
	Hello  relay.ServerHello
	reader *relay.Reader
}

// DialRaw opens a stream and reads the server's hello.
func DialRaw(t *testing.T, r Relay) *Raw {
	t.Helper()
	stream, err := r.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	raw := &Raw{Stream: stream, reader: relay.NewReader(stream, make([]byte, 128<<10), relay.MaxMaxFrame)}
	f := raw.Next(t)
	if raw.Hello, err = relay.ParseServerHello(f.Payload()); err != nil || f.Type != relay.TypeServerHello {
		t.Fatalf("first frame has type %#x: %v", f.Type, err)
	}
	return raw
}

// ConnectRaw opens a stream and does the handshake.
func ConnectRaw(t *testing.T, r Relay, key *identity.Identity) *Raw {
	t.Helper()
	raw := DialRaw(t, r)
	raw.ID = key.ID()
	hello := relay.ClientHello{Version: relay.Version, Node: raw.ID}
	copy(hello.Signature[:], key.Sign(identity.PurposeRelayTLS, identity.NetworkID{}, raw.Exporter))
	raw.Send(t, relay.TypeClientHello, hello.Append(nil))
	if f := raw.Next(t); f.Type != relay.TypeWelcome {
		t.Fatalf("answer to the hello has type %#x: %q", f.Type, f.Payload())
	}
	return raw
}

// Send writes a frame.
func (r *Raw) Send(t *testing.T, typ relay.Type, payload []byte) {
	t.Helper()
	r.write(t, relay.AppendFrame(nil, typ, payload))
}

func (r *Raw) write(t *testing.T, b []byte) {
	t.Helper()
	r.SetWriteDeadline(time.Now().Add(patience))
	if _, err := r.Write(b); err != nil {
		t.Fatal(err)
	}
}

// Next reads a frame. borrowed: valid until the next call.
func (r *Raw) Next(t *testing.T) relay.Frame {
	t.Helper()
	f, err := r.read(patience)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Ends reports whether the server ends the stream in time, whatever it says before. It returns the last frame's type.
func (r *Raw) Ends(t *testing.T) (last relay.Type) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		f, err := r.read(time.Until(end))
		if err != nil {
			if time.Now().Before(end) {
				return last
			}
			break
		}
		last = f.Type
	}
	t.Fatal("the server did not end the stream")
	return last
}

func (r *Raw) read(within time.Duration) (relay.Frame, error) {
	r.SetReadDeadline(time.Now().Add(within))
	for {
		if f, ok := r.reader.Next(); ok {
			return f, nil
		}
		if _, err := r.reader.Fill(); err != nil {
			return relay.Frame{}, err
		}
	}
}
