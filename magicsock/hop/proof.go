package hop

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

const proofSize = 16

// Nonce is the secret of one side of a session.
type Nonce [16]byte

// NewNonce draws one.
func NewNonce() (n Nonce) {
	rand.Read(n[:])
	return n
}

type proof [proofSize]byte

func (p *proof) is(other proof) bool { return hmac.Equal(p[:], other[:]) }

// What a side proves with its nonce: purposes, so that no proof serves for another step.
const (
	purposeHello  = "meshnet/hop/hello/v1\x00"
	purposeAnswer = "meshnet/hop/answer/v1\x00"
	purposeBound  = "meshnet/hop/bound/v1\x00"
)

// prove is HMAC-SHA256(nonce, purpose ‖ sid ‖ challenge), cut; the challenge of a hello is zero.
func (n *Nonce) prove(purpose string, sid uint32, challenge proof) proof {
	mac := hmac.New(sha256.New, n[:])
	mac.Write([]byte(purpose))
	mac.Write(binary.BigEndian.AppendUint32(nil, sid))
	mac.Write(challenge[:])
	return proof(mac.Sum(nil)[:proofSize])
}

// challenge is what the relay asks of a side at an address that wants to be its count-th binding.
func challenge(secret *[32]byte, sid uint32, side int, count uint64, addr netip.AddrPort) proof {
	b := make([]byte, 0, 64)
	b = append(b, "meshnet/hop/challenge/v1\x00"...)
	b = binary.BigEndian.AppendUint32(b, sid)
	b = append(b, byte(side))
	b = binary.BigEndian.AppendUint64(b, count)
	ip := addr.Addr().As16()
	b = append(b, ip[:]...)
	b = binary.BigEndian.AppendUint16(b, addr.Port())
	mac := hmac.New(sha256.New, secret[:])
	mac.Write(b)
	mac.Write([]byte(addr.Addr().Zone()))
	return proof(mac.Sum(nil)[:proofSize])
}
