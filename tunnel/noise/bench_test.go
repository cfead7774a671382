package noise

import (
	"testing"

	"github.com/meshnet/meshnet/identity"
)

// couple is two nodes that know each other.
type couple struct {
	a, b   *Static
	atA    *Remote // b as a sees it
	atB    *Remote
	psk    identity.Secret
	stamp  [12]byte
	first  [InitiationSize]byte
	second [ResponseSize]byte
}

func newCouple(t testing.TB) *couple {
	c := &couple{a: static(t, identity.NewSecret()), b: static(t, identity.NewSecret()), psk: identity.NewSecret()}
	c.atA, c.atB = remote(t, c.a, c.b.Public()), remote(t, c.b, c.a.Public())
	copy(c.stamp[:], "\x40\x00\x00\x00\x65\x00\x00\x01\x00\x00\x00\x02")
	return c
}

// known is b's list of peers.
func (c *couple) known(key identity.WGKey) *Remote {
	if key == c.atB.Key() {
		return c.atB
	}
	return nil
}

func (c *couple) initiate(t testing.TB) *Initiation {
	i, err := c.a.Initiate(c.atA, 0xa1a2a3a4, c.stamp, nil, &c.first)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (c *couple) open(t testing.TB) *Received {
	in, err := c.b.Open(c.first[:], c.known)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func (c *couple) respond(t testing.TB) Keys {
	keys, err := c.open(t).Respond(0xb1b2b3b4, c.psk, nil, &c.second)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// The whole of a responder's work: Open and Respond.
func BenchmarkRespond(b *testing.B) {
	c := newCouple(b)
	c.initiate(b)
	b.ReportAllocs()
	for b.Loop() {
		c.respond(b)
	}
}

func BenchmarkInitiate(b *testing.B) {
	c := newCouple(b)
	b.ReportAllocs()
	for b.Loop() {
		c.initiate(b)
	}
}

func BenchmarkFinish(b *testing.B) {
	c := newCouple(b)
	saved := *c.initiate(b)
	c.respond(b)
	psks := []identity.Secret{c.psk}
	b.ReportAllocs()
	for b.Loop() {
		i := saved
		if _, _, err := i.Finish(c.second[:], psks); err != nil {
			b.Fatal(err)
		}
	}
}

// What a stranger's datagram costs at most when it knows our key.
func BenchmarkOpenForged(b *testing.B) {
	c := newCouple(b)
	c.initiate(b)
	c.first[initiationStaticAt] ^= 1
	c.atA.putMACs(c.first[:], nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.b.Open(c.first[:], c.known); err != ErrAuth {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckMAC1(b *testing.B) {
	c := newCouple(b)
	c.initiate(b)
	b.ReportAllocs()
	for b.Loop() {
		if !c.b.CheckMAC1(c.first[:]) {
			b.Fatal("refused")
		}
	}
}

func BenchmarkShared(b *testing.B) {
	c := newCouple(b)
	var out [32]byte
	b.ReportAllocs()
	for b.Loop() {
		c.a.private.shared(&out, &c.b.public)
	}
}

func BenchmarkPublic(b *testing.B) {
	c := newCouple(b)
	var out [32]byte
	b.ReportAllocs()
	for b.Loop() {
		c.a.private.public(&out)
	}
}
