package noise

import (
	"encoding/binary"

	"github.com/meshnet/meshnet/identity"
)

// Received is an initiation that was opened and not yet answered. Not for concurrent use.
//
// It proves that its sender holds the key, not that it was sent now: whoever saw it can send it again, until the
// timestamp is compared with the latest of that key.
type Received struct {
	unprintable
	Remote    identity.WGKey // the initiator's key
	Timestamp [12]byte       // TAI64N: compares as bytes
	Sender    uint32         // the initiator's index

	remote    *Remote // nil once spent
	ephemeral [32]byte
	state     symmetric
}

// Open reads an initiation (whitepaper §5.4.2). The sender's key is asked for among the peers; remote returns nil for
// one that it does not know.
//
// The errors are ErrMalformed, ErrMAC, ErrUnknown, ErrAuth, and identity.ErrBadKey for an ephemeral key of small
// order.
func (s *Static) Open(msg []byte, remote func(identity.WGKey) *Remote) (*Received, error) {
	if TypeOf(msg) != TypeInitiation {
		return nil, ErrMalformed
	}
	if !s.CheckMAC1(msg) {
		return nil, ErrMAC
	}
	in := &Received{
		Sender:    binary.LittleEndian.Uint32(msg[senderAt:]),
		ephemeral: [32]byte(msg[initiationEphemeralAt:]),
		state:     s.begin,
	}
	if err := in.open(s, msg, remote); err != nil {
		in.Wipe()
		return nil, err
	}
	return in, nil
}

func (in *Received) open(s *Static, msg []byte, remote func(identity.WGKey) *Remote) error {
	in.state.mixPublic(in.ephemeral[:])
	if !in.state.mixShared(s.private, &in.ephemeral) {
		return identity.ErrBadKey
	}
	if !in.state.open(in.Remote[:], msg[initiationStaticAt:initiationTimeAt]) {
		return ErrAuth
	}
	in.remote = remote(in.Remote)
	if in.remote == nil {
		return ErrUnknown
	}
	in.state.mixSecret(in.remote.shared[:])
	if !in.state.open(in.Timestamp[:], msg[initiationTimeAt:initiationMACsAt]) {
		return ErrAuth
	}
	return nil
}

// Respond answers: it writes the second message (whitepaper §5.4.3) under the responder's own index and returns the
// keys of the session, which the initiator proves to have with its first data message. Without a pre-shared key psk
// is zero. The cookie is as in Initiate, nil when there is none.
//
// An initiation is answered once, also when that fails; after that it is ErrSpent. identity.ErrBadKey is returned after
// its Remote was wiped.
func (in *Received) Respond(
	index uint32, psk identity.Secret, cookie *Cookie, msg *[ResponseSize]byte,
) (Keys, error) {
	if in.remote == nil {
		return Keys{}, ErrSpent
	}
	keys, err := in.respond(newScalar(), index, &psk, cookie, msg)
	wipe(psk[:])
	in.Wipe()
	return keys, err
}

// respond is Respond with the ephemeral key drawn.
func (in *Received) respond(
	k scalar, index uint32, psk *identity.Secret, cookie *Cookie, msg *[ResponseSize]byte,
) (keys Keys, err error) {
	putHead(msg[:], TypeResponse, index)
	binary.LittleEndian.PutUint32(msg[responseReceiverAt:], in.Sender)
	ephemeral := (*[32]byte)(msg[responseEphemeralAt:])
	k.public(ephemeral)
	in.state.mixPublic(ephemeral[:])
	if !in.state.mixShared(k, &in.ephemeral) || !in.state.mixShared(k, &in.remote.public) {
		return Keys{}, identity.ErrBadKey
	}
	in.state.mixPSK(psk)
	in.state.seal(msg[responseEmptyAt:responseMACsAt], nil)
	in.remote.putMACs(msg[:], cookie)
	in.state.split(&keys.Receive, &keys.Send)
	return keys, nil
}

// Wipe ends the handshake and forgets its keys. It may be called at any time, and again.
func (in *Received) Wipe() {
	in.remote = nil
	wipe(in.ephemeral[:])
	in.state.wipe()
}
