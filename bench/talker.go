package main

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// talkerMTU is the largest packet that a talker seals.
const talkerMTU = 1280

var errNoSession = errors.New("no session")

// talker is one member's side of WireGuard, with one other member. It does no I/O. Owned by one goroutine.
type talker struct {
	machine *wg.Machine
	peer    *wg.Peer
	nonce   wg.Nonce
}

// newTalker makes the side of a private key.
func newTalker(private identity.Secret, other identity.WGKey, psk identity.Secret, now time.Time) (*talker, error) {
	machine, err := wg.New(private, now, rand.New(rand.NewChaCha8(identity.NewSecret())))
	if err != nil {
		return nil, err
	}
	t := &talker{machine: machine}
	t.peer = wg.NewPeer(other, t, machine.Notes())
	machine.Add(t.peer, []identity.Secret{psk})
	return t, nil
}

// handshake takes a handshake message. done tells that one of our own handshakes ended well with it.
func (t *talker) handshake(now time.Time, msg []byte) (actions []wg.Action, done bool) {
	if kind := noise.TypeOf(msg); kind != noise.TypeCookieReply && !t.machine.Static().CheckMAC1(msg) {
		return nil, false
	}
	before := t.machine.Counters().Established
	switch noise.TypeOf(msg) {
	case noise.TypeInitiation:
		return t.machine.Initiation(now, msg, &datagram.Source{}), false
	case noise.TypeResponse:
		actions = t.machine.Response(now, msg, &datagram.Source{})
	case noise.TypeCookieReply:
		actions = t.machine.CookieReply(now, msg)
	}
	return actions, t.machine.Counters().Established > before
}

// seal makes a datagram of a packet; of none it is a keepalive.
func (t *talker) seal(now time.Time, packet []byte) ([]byte, error) {
	at := t.machine.Clock().At(now)
	s := t.peer.Acquire(at)
	if s == nil {
		return nil, errNoSession
	}
	defer s.Release()
	counter, ok := s.Reserve(1)
	if !ok {
		return nil, errNoSession
	}
	padded := wg.Padded(len(packet), talkerMTU)
	d := make([]byte, padded+wg.Overhead)
	copy(d[wg.HeaderSize:], packet)
	s.Seal(&t.nonce, d, padded, counter)
	t.peer.Sent(at, len(d), len(packet) > 0)
	return d, nil
}

// open returns the packet in a datagram, where it lies; none for what cannot be opened and for keepalives.
func (t *talker) open(now time.Time, d []byte) []byte {
	if len(d) < wg.Overhead {
		return nil
	}
	at := t.machine.Clock().At(now)
	s := t.machine.Table().Acquire(d, at)
	if s == nil {
		return nil
	}
	defer s.Release()
	packet, counter, err := s.Open(&t.nonce, d)
	if err != nil {
		return nil
	}
	stale := []bool{false}
	if s.Fresh([]uint64{counter}, stale); stale[0] {
		return nil
	}
	t.peer.Received(at, s, len(d), len(packet) > 0)
	return packet
}
