package noise

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/meshnet/meshnet/identity"
)

func TestHandshake(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	in := c.open(t)
	if in.Remote != c.a.Public() || in.Timestamp != c.stamp || in.Sender != 0xa1a2a3a4 {
		t.Fatalf("got %x %x %x", in.Remote[:], in.Timestamp, in.Sender)
	}
	theirs, err := in.Respond(0xb1b2b3b4, c.psk, nil, &c.second)
	if err != nil {
		t.Fatal(err)
	}
	if to, ok := ReceiverIndex(c.second[:]); !ok || to != i.Index() {
		t.Errorf("response is for index %x, %v", to, ok)
	}
	if from, ok := SenderIndex(c.second[:]); !ok || from != 0xb1b2b3b4 {
		t.Errorf("response is from index %x, %v", from, ok)
	}
	ours, _, err := i.Finish(c.second[:], []identity.Secret{c.psk})
	if err != nil {
		t.Fatal(err)
	}
	if ours.Send != theirs.Receive || ours.Receive != theirs.Send || ours.Send == ours.Receive || ours.Send.IsZero() {
		t.Error("the keys do not fit")
	}
}

// No two handshakes have a key in common, and what was in the caller's buffers before is not seen.
func TestFresh(t *testing.T) {
	c := newCouple(t)
	seen := make(map[identity.Secret]bool)
	ephemerals := make(map[[32]byte]bool)
	const rounds = 8
	for range rounds {
		for n := range c.first {
			c.first[n] = 0xff
		}
		for n := range c.second {
			c.second[n] = 0xff
		}
		c.initiate(t)
		keys := c.respond(t)
		seen[keys.Send], seen[keys.Receive] = true, true
		ephemerals[[32]byte(c.first[initiationEphemeralAt:])] = true
		ephemerals[[32]byte(c.second[responseEphemeralAt:])] = true
		same(t, "mac2 of initiation", c.first[132:], make([]byte, 16))
		same(t, "mac2 of response", c.second[76:], make([]byte, 16))
	}
	if len(seen) != 2*rounds || len(ephemerals) != 2*rounds {
		t.Errorf("%d keys and %d ephemerals in %d handshakes", len(seen), len(ephemerals), rounds)
	}
}

func TestPSKs(t *testing.T) {
	c := newCouple(t)
	wrong := func(n int) (keys []identity.Secret) {
		for range n {
			keys = append(keys, identity.NewSecret())
		}
		return keys
	}
	for _, tt := range []struct {
		name string
		psks []identity.Secret
		at   int
		err  error
	}{
		{"the one", []identity.Secret{c.psk}, 0, nil},
		{"the newest", append([]identity.Secret{c.psk}, wrong(2)...), 0, nil},
		{"the oldest", append(wrong(3), c.psk), 3, nil},
		{"twice", []identity.Secret{{}, c.psk, c.psk}, 1, nil},
		{"another", wrong(1), 0, ErrAuth},
		{"none", []identity.Secret{{}}, 0, ErrAuth},
		{"no list", nil, 0, ErrAuth},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := c.initiate(t)
			theirs := c.respond(t)
			keys, at, err := i.Finish(c.second[:], tt.psks)
			if !errors.Is(err, tt.err) || at != tt.at {
				t.Fatalf("psk %d, %v; want %d, %v", at, err, tt.at, tt.err)
			}
			if (keys.Send == theirs.Receive && keys.Receive == theirs.Send) != (err == nil) {
				t.Error("wrong keys")
			}
			if err != nil && keys != (Keys{}) {
				t.Error("keys with an error")
			}
		})
	}
}

// flip changes one bit of each byte in turn; with macs, mac1 is made for the changed message.
func flip(msg []byte, to *Remote, macs bool, f func(at int, changed []byte)) {
	for at := range msg {
		changed := slices.Clone(msg)
		changed[at] ^= 1 << (at % 8)
		if macs {
			to.putMACs(changed, nil)
		}
		f(at, changed)
	}
}

// A changed initiation is refused wherever the change is, but for mac2, which only load makes count. Somebody who can
// make macs (the responder's public key is enough) can change the sender's index too: it is not in the hash.
func TestChangedInitiation(t *testing.T) {
	c := newCouple(t)
	c.initiate(t)
	for _, macs := range []bool{false, true} {
		flip(c.first[:], c.atA, macs, func(at int, changed []byte) {
			free := at >= 132 || macs && (at >= senderAt && at < initiationEphemeralAt || at >= initiationMACsAt)
			in, err := c.b.Open(changed, c.known)
			if (err == nil) != free || (in == nil) == free {
				t.Errorf("macs %v, byte %d: %v", macs, at, err)
			}
		})
	}
}

// The same of responses; none of the refused ones spends the handshake.
func TestChangedResponse(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	theirs := c.respond(t)
	psks := []identity.Secret{identity.NewSecret(), c.psk}
	for _, macs := range []bool{false, true} {
		flip(c.second[:], c.atB, macs, func(at int, changed []byte) {
			if at >= 76 || macs && (at >= senderAt && at < responseReceiverAt || at >= responseMACsAt) {
				return
			}
			if keys, _, err := i.Finish(changed, psks); err == nil || keys != (Keys{}) {
				t.Errorf("macs %v, byte %d: accepted", macs, at)
			}
		})
	}
	keys, at, err := i.Finish(c.second[:], psks)
	if err != nil || at != 1 || keys.Send != theirs.Receive {
		t.Fatalf("after the forged ones: psk %d, %v", at, err)
	}
	if _, _, err := i.Finish(c.second[:], psks); !errors.Is(err, ErrSpent) {
		t.Errorf("after its end: %v", err)
	}
}

func TestResponseChangedMAC2(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	c.respond(t)
	c.second[80] ^= 1
	if _, _, err := i.Finish(c.second[:], []identity.Secret{c.psk}); err != nil {
		t.Errorf("mac2 is for load only: %v", err)
	}
}

func TestFinishErrors(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	first := c.first
	other := c.initiate(t)
	c.respond(t) // to other, which has the same index
	psks := []identity.Secret{c.psk}
	if _, _, err := i.Finish(c.second[:], psks); !errors.Is(err, ErrAuth) {
		t.Errorf("response to another initiation: %v", err)
	}
	if _, _, err := i.Finish(first[:], psks); !errors.Is(err, ErrMalformed) {
		t.Errorf("an initiation: %v", err)
	}
	for n := range ResponseSize + 40 {
		if n == ResponseSize {
			continue
		}
		msg := make([]byte, n)
		copy(msg, c.second[:])
		if _, _, err := other.Finish(msg, psks); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	changed := c.second
	changed[responseMACsAt] ^= 1
	if _, _, err := other.Finish(changed[:], psks); !errors.Is(err, ErrMAC) {
		t.Errorf("wrong mac1: %v", err)
	}
	changed = c.second
	changed[responseReceiverAt] ^= 1
	c.atB.putMACs(changed[:], nil)
	if _, _, err := other.Finish(changed[:], psks); !errors.Is(err, ErrMalformed) {
		t.Errorf("another index: %v", err)
	}
	// A data message to the right index.
	data := make([]byte, ResponseSize)
	PutDataHeader(data, other.Index(), 1)
	if _, _, err := other.Finish(data, psks); !errors.Is(err, ErrMalformed) {
		t.Errorf("data: %v", err)
	}
	if _, _, err := other.Finish(c.second[:], psks); err != nil {
		t.Errorf("the right one after all: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	c := newCouple(t)
	c.initiate(t)
	for n := range InitiationSize + 40 {
		if n == InitiationSize {
			continue
		}
		msg := make([]byte, n)
		copy(msg, c.first[:])
		if _, err := c.b.Open(msg, c.known); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := c.a.Open(c.first[:], c.known); !errors.Is(err, ErrMAC) {
		t.Errorf("to someone else: %v", err)
	}
	asked := 0
	unknown := func(key identity.WGKey) *Remote {
		asked++
		if key != c.a.Public() {
			t.Errorf("asked for %x", key[:])
		}
		return nil
	}
	if _, err := c.b.Open(c.first[:], unknown); !errors.Is(err, ErrUnknown) || asked != 1 {
		t.Errorf("from nobody: %v, asked %d times", err, asked)
	}
	confused := func(identity.WGKey) *Remote { return remote(t, c.b, static(t, identity.NewSecret()).Public()) }
	if _, err := c.b.Open(c.first[:], confused); !errors.Is(err, ErrAuth) {
		t.Errorf("as somebody else: %v", err)
	}
	changed := c.first
	changed[initiationStaticAt] ^= 1
	c.atA.putMACs(changed[:], nil)
	if _, err := c.b.Open(changed[:], unknown); !errors.Is(err, ErrAuth) || asked != 1 {
		t.Errorf("key not authentic: %v, asked %d times", err, asked)
	}
}

// Whoever claims to be a peer without its private key is found out by the timestamp, whose key needs it.
func TestImpersonation(t *testing.T) {
	c := newCouple(t)
	mallory := static(t, identity.NewSecret())
	mallory.public = c.a.public
	if _, err := mallory.Initiate(remote(t, mallory, c.b.Public()), 1, c.stamp, nil, &c.first); err != nil {
		t.Fatal(err)
	}
	if _, err := c.b.Open(c.first[:], c.known); !errors.Is(err, ErrAuth) {
		t.Errorf("got %v", err)
	}
}

// Someone else than the one asked answers.
func TestWrongResponder(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	in := c.open(t)
	in.remote = remote(t, static(t, identity.NewSecret()), c.a.Public())
	in.state.chain[0] ^= 1 // it cannot know the chaining key
	if _, err := in.Respond(1, c.psk, nil, &c.second); err != nil {
		t.Fatal(err)
	}
	if _, _, err := i.Finish(c.second[:], []identity.Secret{c.psk}); !errors.Is(err, ErrAuth) {
		t.Errorf("got %v", err)
	}
}

func TestSmallOrder(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	c.respond(t)
	for _, point := range smallOrder(t) {
		if _, err := c.a.Remote(point); !errors.Is(err, identity.ErrBadKey) {
			t.Errorf("%x as a peer: %v", point[:], err)
		}
		first, second := c.first, c.second
		copy(first[initiationEphemeralAt:], point[:])
		c.atA.putMACs(first[:], nil)
		if _, err := c.b.Open(first[:], c.known); !errors.Is(err, identity.ErrBadKey) {
			t.Errorf("%x in an initiation: %v", point[:], err)
		}
		copy(second[responseEphemeralAt:], point[:])
		c.atB.putMACs(second[:], nil)
		if _, _, err := i.Finish(second[:], []identity.Secret{c.psk}); !errors.Is(err, identity.ErrBadKey) {
			t.Errorf("%x in a response: %v", point[:], err)
		}
	}
	if _, _, err := i.Finish(c.second[:], []identity.Secret{c.psk}); err != nil {
		t.Errorf("the right response after all: %v", err)
	}
}

func TestCheckMAC1(t *testing.T) {
	c := newCouple(t)
	c.initiate(t)
	c.respond(t)
	for _, tt := range []struct {
		msg  []byte
		from *Remote // whose key its mac is made with
		to   *Static
	}{{c.first[:], c.atA, c.b}, {c.second[:], c.atB, c.a}} {
		if !tt.to.CheckMAC1(tt.msg) {
			t.Errorf("type %d: refused", TypeOf(tt.msg))
		}
		flip(tt.msg, tt.from, false, func(at int, changed []byte) {
			if free := at >= len(tt.msg)-16; tt.to.CheckMAC1(changed) != free {
				t.Errorf("type %d, byte %d: %v", TypeOf(tt.msg), at, !free)
			}
		})
	}
	for _, msg := range [][]byte{nil, c.first[:147], c.second[:91], message(3, 64), message(4, 148)} {
		if len(msg) > macsSize {
			c.atA.putMACs(msg, nil) // a right mac in the wrong place
		}
		if c.b.CheckMAC1(msg) {
			t.Errorf("%d bytes of type %d pass", len(msg), TypeOf(msg))
		}
	}
}

func TestNewStatic(t *testing.T) {
	if _, err := NewStatic(identity.Secret{}); !errors.Is(err, identity.ErrBadKey) {
		t.Errorf("the zero key: %v", err)
	}
	id := identity.New()
	if got := static(t, id.WGPrivate()).Public(); got != id.WG() {
		t.Errorf("got %x, want %x", got, id.WG())
	}
	raw := identity.NewSecret()
	raw[0] |= 7
	raw[31] |= 128
	want := private(t, raw[:]).PublicKey().Bytes()
	if got := static(t, raw).Public(); !bytes.Equal(got[:], want) {
		t.Errorf("not clamped: got %x, want %x", got, want)
	}
}

// zero reports whether all bytes anywhere in v are.
func zero(v any) bool { return reflect.ValueOf(v).IsZero() }

func TestSpentStateIsWiped(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	if zero(i.ephemeral) || zero(i.state) {
		t.Fatal("an initiation without state")
	}
	in := c.open(t)
	if zero(in.ephemeral) || zero(in.state) {
		t.Fatal("a received initiation without state")
	}
	keys, err := in.Respond(1, c.psk, nil, &c.second)
	if err != nil {
		t.Fatal(err)
	}
	if !zero(in.ephemeral) || !zero(in.state) || in.remote != nil {
		t.Error("answered, but not wiped")
	}
	untouched := c.second
	if again, err := in.Respond(1, c.psk, nil, &c.second); !errors.Is(err, ErrSpent) || again != (Keys{}) {
		t.Errorf("answered twice: %v", err)
	}
	if c.second != untouched {
		t.Error("the second answer was written")
	}
	if _, _, err := i.Finish(c.second[:], []identity.Secret{c.psk}); err != nil {
		t.Fatal(err)
	}
	if !zero(i.ephemeral) || !zero(i.state) || i.local != nil {
		t.Error("finished, but not wiped")
	}
	keys.Wipe()
	if keys != (Keys{}) {
		t.Error("keys not wiped")
	}
}

func TestWipe(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	in := c.open(t)
	c.respond(t)
	psks := []identity.Secret{c.psk}

	i.Wipe()
	i.Wipe()
	if !zero(i.ephemeral) || !zero(i.state) {
		t.Error("initiation not wiped")
	}
	if _, _, err := i.Finish(c.second[:], psks); !errors.Is(err, ErrSpent) {
		t.Errorf("wiped initiation: %v", err)
	}
	in.Wipe()
	in.Wipe()
	if !zero(in.ephemeral) || !zero(in.state) {
		t.Error("received initiation not wiped")
	}
	if _, err := in.Respond(1, c.psk, nil, &c.second); !errors.Is(err, ErrSpent) {
		t.Errorf("wiped received initiation: %v", err)
	}

	in = c.open(t)
	c.atB.Wipe()
	if !zero(*c.atB) {
		t.Error("remote not wiped")
	}
	if _, err := in.Respond(1, c.psk, nil, &c.second); !errors.Is(err, identity.ErrBadKey) {
		t.Errorf("respond to a wiped remote: %v", err)
	}
	if _, err := c.b.Initiate(c.atB, 1, c.stamp, nil, &c.first); !errors.Is(err, identity.ErrBadKey) {
		t.Errorf("initiate to a wiped remote: %v", err)
	}
}

func TestWipedStatic(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	c.respond(t)
	c.a.Wipe()
	if !zero(*c.a) {
		t.Error("static not wiped")
	}
	if _, err := c.a.Initiate(c.atA, 1, c.stamp, nil, &c.first); !errors.Is(err, identity.ErrBadKey) {
		t.Errorf("initiate: %v", err)
	}
	if _, err := c.a.Remote(c.b.Public()); !errors.Is(err, identity.ErrBadKey) {
		t.Errorf("remote: %v", err)
	}
	if _, _, err := i.Finish(c.second[:], []identity.Secret{c.psk}); err == nil {
		t.Error("finished")
	}
	// Even with the mac made for the key that is left.
	toNobody := &Remote{}
	toNobody.putMACs(c.second[:], nil)
	if _, _, err := i.Finish(c.second[:], []identity.Secret{c.psk}); !errors.Is(err, identity.ErrBadKey) {
		t.Errorf("finish: %v", err)
	}
	toNobody.putMACs(c.first[:], nil)
	if _, err := c.a.Open(c.first[:], c.known); !errors.Is(err, identity.ErrBadKey) {
		t.Errorf("open: %v", err)
	}
}

// Nothing secret gets into a log by accident.
func TestUnprintable(t *testing.T) {
	c := newCouple(t)
	i := c.initiate(t)
	in := c.open(t)
	keys := c.respond(t)
	for _, v := range []any{c.a, *c.a, c.atA, *c.atA, i, *i, in, *in, keys, &keys, NewChecker(c.a), *NewChecker(c.a)} {
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		text := fmt.Sprintf("%v %+v %#v %s %d %x", v, v, v, v, v, v) + log.String()
		if !strings.Contains(text, "[secret]") || strings.Contains(text, "0x") {
			t.Errorf("%T prints as %s", v, text)
		}
	}
}
