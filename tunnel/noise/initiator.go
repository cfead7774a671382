package noise

import "github.com/meshnet/meshnet/identity"

// Initiation is a handshake begun by us and not yet answered. Not for concurrent use.
type Initiation struct {
	unprintable
	local     *Static // nil once spent
	ephemeral scalar
	state     symmetric
	index     uint32
	mac1      [macSize]byte
}

// Initiate begins a handshake with r and writes its first message (whitepaper §5.4.2). The index is the sender's own,
// which the answer comes back with; the timestamp, TAI64N, must be later than all sent to r before. The second mac is
// made of the cookie, the last one of r and no older than CookieLifetime, or stays zero when that is nil.
// identity.ErrBadKey is returned after s or r was wiped.
func (s *Static) Initiate(
	r *Remote, index uint32, timestamp [12]byte, cookie *Cookie, msg *[InitiationSize]byte,
) (*Initiation, error) {
	i := &Initiation{local: s, index: index, ephemeral: newScalar()}
	if err := i.begin(r, timestamp, cookie, msg); err != nil {
		i.Wipe()
		return nil, err
	}
	return i, nil
}

// begin is Initiate with the ephemeral key drawn.
func (i *Initiation) begin(r *Remote, timestamp [12]byte, cookie *Cookie, msg *[InitiationSize]byte) error {
	if i.local.private == (scalar{}) {
		return identity.ErrBadKey
	}
	putHead(msg[:], TypeInitiation, i.index)
	ephemeral := (*[32]byte)(msg[initiationEphemeralAt:])
	i.ephemeral.public(ephemeral)
	i.state = r.begin
	i.state.mixPublic(ephemeral[:])
	if !i.state.mixShared(i.ephemeral, &r.public) {
		return identity.ErrBadKey
	}
	i.state.seal(msg[initiationStaticAt:initiationTimeAt], i.local.public[:])
	i.state.mixSecret(r.shared[:])
	i.state.seal(msg[initiationTimeAt:initiationMACsAt], timestamp[:])
	r.putMACs(msg[:], cookie)
	i.mac1 = MAC1(msg[:])
	return nil
}

// Index is the one the handshake was begun with.
func (i *Initiation) Index() uint32 { return i.index }

// MAC1 is that of the message, for OpenCookie.
func (i *Initiation) MAC1() [16]byte { return i.mac1 }

// Finish takes a response (whitepaper §5.4.3) and tries the pre-shared keys in their order; without one, the list
// holds the zero key. It returns the keys of the session, and the place of the pre-shared key that fitted. The
// responder's index is SenderIndex of the response.
//
// A response that does not fit changes nothing, so a forged one cannot end the handshake: ErrMalformed when it is no
// response or one to another index, ErrMAC, identity.ErrBadKey for an ephemeral key of small order, ErrAuth when no
// pre-shared key opens it. After a success the handshake is spent: ErrSpent.
func (i *Initiation) Finish(response []byte, psks []identity.Secret) (keys Keys, psk int, err error) {
	if i.local == nil {
		return Keys{}, 0, ErrSpent
	}
	if to, ok := ReceiverIndex(response); !ok || to != i.index || TypeOf(response) != TypeResponse {
		return Keys{}, 0, ErrMalformed
	}
	if !i.local.CheckMAC1(response) {
		return Keys{}, 0, ErrMAC
	}
	ephemeral := (*[32]byte)(response[responseEphemeralAt:])
	common := i.state
	defer common.wipe()
	common.mixPublic(ephemeral[:])
	if !common.mixShared(i.ephemeral, ephemeral) || !common.mixShared(i.local.private, ephemeral) {
		return Keys{}, 0, identity.ErrBadKey
	}
	var with symmetric
	defer with.wipe()
	for n := range psks {
		with = common
		with.mixPSK(&psks[n])
		if with.open(nil, response[responseEmptyAt:responseMACsAt]) {
			with.split(&keys.Send, &keys.Receive)
			i.Wipe()
			return keys, n, nil
		}
	}
	return Keys{}, 0, ErrAuth
}

// Wipe ends the handshake and forgets its keys. It may be called at any time, and again.
func (i *Initiation) Wipe() {
	i.local = nil
	i.ephemeral.wipe()
	i.state.wipe()
}
