package disco

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// TypeSignal is the first byte of a sealed signal:
//
//	signal:        type 1 | tag 8 | nonce 24 | XChaCha20-Poly1305(payload), as a ping is sealed
//	payload:       txid 12 | time 8 | kind 1 | …
//	call-me-maybe: nat 1 | count 1 | count × (address 16 | port 2)
//	relay open:    peer 32 | nonce 16
//	relay offer:   peer 32 | sid 4 | nonce 16
//	relay answer:  about 12 | sid 4 | code 1 | retry after 2, in seconds
//	relay close:   sid 4
//
// A signal is sealed from end to end, so it may come by any way: over a path between the two, or by a relay server, a
// home or the ring, which carry it without reading it. A member relay is negotiated by such packets alone, over the path
// that both sides have to it anyway, and they are retransmitted until the answer comes: no control session is needed,
// and control has no messages for it.
const TypeSignal Type = 0xC6

const (
	// MaxSignal is the largest packet of a signal, in bytes.
	MaxSignal = 1280
	// MaxEndpoints is how many addresses a call-me-maybe names.
	MaxEndpoints = 32

	signalFixed   = 12 + 8 + 1
	minSignalBody = 2 // a call-me-maybe without addresses
	// minSignal is the size of the smallest packet of a signal.
	minSignal = Overhead + signalFixed + minSignalBody
)

// Kind says what a signal is about.
type Kind byte

// The kinds of signals, and the fields that they use.
const (
	CallMeMaybe Kind = 1 + iota // Endpoints, NAT
	RelayOpen                   // Peer, Nonce
	RelayOffer                  // Peer, SID, Nonce
	RelayAnswer                 // About, SID, Code, Retry
	RelayClose                  // SID
)

// Code is what a RelayAnswer says.
type Code byte

// The answers.
const (
	CodeOK          Code = iota // there is a session SID
	CodeRefused                 // consent is not given: by the relay, or by the peer
	CodeFull                    // no room for another session
	CodeUnknownPeer             // not a member, or none that the relay reaches
	CodeNotNow                  // asked too often, or not ready: again after Retry
	lastCode        = CodeNotNow
)

// Nonce is the secret of one side of a member relay's session.
type Nonce [16]byte

// Signal is what one member tells another outside of any session, once and sealed. TxID and Time always count; of the
// other fields those of the Kind do.
//
// Nothing acknowledges a signal but what it brings about: RelayAnswer repeats the TxID of the RelayOpen or RelayOffer
// that it answers; a call-me-maybe is answered by pings. A retransmission has the TxID of the first.
type Signal struct {
	Kind Kind
	TxID TxID
	Time time.Time // the sender's clock, to the millisecond

	Endpoints []netip.AddrPort // where to find the sender, at most MaxEndpoints; IPv4 unmapped, without zones
	NAT       byte             // how the sender's NATs map; the numbers of netmap.NAT, unknown ones are kept

	Peer  identity.PeerID // RelayOpen: to whom; RelayOffer: from whom
	SID   uint32          // the session at the relay
	Nonce Nonce           // the receiver's (RelayOffer) or the sender's (RelayOpen) secret of the session

	About TxID          // of the signal that is answered
	Code  Code          // the answer
	Retry time.Duration // not before then, in whole seconds to 65535; 0: as one likes
}

// SealSignal makes the packet of s under tag. It panics for what no parser takes: an unknown Kind or Code, too many
// endpoints, or one without address or port.
func (k Key) SealSignal(tag Tag, s *Signal) []byte {
	body := s.encode()
	pkt := make([]byte, headerSize, Overhead+len(body))
	pkt[0] = byte(TypeSignal)
	copy(pkt[1:], tag[:])
	rand.Read(pkt[1+tagSize : headerSize])
	return k.aead.Seal(pkt, pkt[1+tagSize:headerSize], body, pkt[:headerSize])
}

// OpenSignal authenticates and parses a packet. Errors: ErrMalformed, ErrSeal.
func (k Key) OpenSignal(pkt []byte) (*Signal, error) {
	if _, err := SignalTag(pkt); err != nil {
		return nil, err
	}
	payload, err := k.aead.Open(nil, pkt[1+tagSize:headerSize], pkt[headerSize:], pkt[:headerSize])
	if err != nil {
		return nil, ErrSeal
	}
	return parseSignal(payload)
}

// SignalTag reads the tag of something that looks like a signal.
func SignalTag(pkt []byte) (Tag, error) {
	if len(pkt) < minSignal || len(pkt) > MaxSignal || Type(pkt[0]) != TypeSignal {
		return Tag{}, ErrMalformed
	}
	return Tag(pkt[1 : 1+tagSize]), nil
}

func (s *Signal) encode() []byte {
	b := make([]byte, 0, signalFixed+64+addrSize*len(s.Endpoints))
	b = append(b, s.TxID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Time.UnixMilli()))
	b = append(b, byte(s.Kind))
	switch s.Kind {
	case CallMeMaybe:
		return s.appendEndpoints(b)
	case RelayOpen:
		b = append(b, s.Peer[:]...)
		return append(b, s.Nonce[:]...)
	case RelayOffer:
		b = append(b, s.Peer[:]...)
		b = binary.BigEndian.AppendUint32(b, s.SID)
		return append(b, s.Nonce[:]...)
	case RelayAnswer:
		if s.Code > lastCode {
			panic("disco: unknown code of an answer")
		}
		b = append(b, s.About[:]...)
		b = binary.BigEndian.AppendUint32(b, s.SID)
		b = append(b, byte(s.Code))
		return binary.BigEndian.AppendUint16(b, uint16(min(max(s.Retry/time.Second, 0), 1<<16-1)))
	case RelayClose:
		return binary.BigEndian.AppendUint32(b, s.SID)
	}
	panic("disco: unknown kind of signal")
}

func (s *Signal) appendEndpoints(b []byte) []byte {
	if len(s.Endpoints) > MaxEndpoints {
		panic("disco: too many endpoints in a signal")
	}
	b = append(b, s.NAT, byte(len(s.Endpoints)))
	for _, e := range s.Endpoints {
		if !callable(e) {
			panic("disco: a signal with an endpoint that is none")
		}
		ip := e.Addr().As16()
		b = append(b, ip[:]...)
		b = binary.BigEndian.AppendUint16(b, e.Port())
	}
	return b
}

// callable reports whether an endpoint is one.
func callable(e netip.AddrPort) bool {
	return e.IsValid() && !e.Addr().IsUnspecified() && e.Port() != 0
}

// bodySize is the size of a kind's fields, where it is fixed.
func bodySize(k Kind) (size int, fixed bool) {
	switch k {
	case RelayOpen:
		return 32 + 16, true
	case RelayOffer:
		return 32 + 4 + 16, true
	case RelayAnswer:
		return 12 + 4 + 1 + 2, true
	case RelayClose:
		return 4, true
	}
	return 0, false
}

func parseSignal(b []byte) (*Signal, error) {
	if len(b) < signalFixed+minSignalBody {
		return nil, ErrMalformed
	}
	s := new(Signal)
	b = b[copy(s.TxID[:], b):]
	ms := binary.BigEndian.Uint64(b)
	if ms >= 1<<53 {
		return nil, ErrMalformed
	}
	s.Time, s.Kind, b = time.UnixMilli(int64(ms)), Kind(b[8]), b[9:]
	if size, fixed := bodySize(s.Kind); fixed && len(b) != size {
		return nil, ErrMalformed
	}
	switch s.Kind {
	case CallMeMaybe:
		return s, s.parseEndpoints(b)
	case RelayOpen:
		b = b[copy(s.Peer[:], b):]
		s.Nonce = Nonce(b)
	case RelayOffer:
		b = b[copy(s.Peer[:], b):]
		s.SID, s.Nonce = binary.BigEndian.Uint32(b), Nonce(b[4:])
	case RelayAnswer:
		b = b[copy(s.About[:], b):]
		s.SID, s.Code = binary.BigEndian.Uint32(b), Code(b[4])
		s.Retry = time.Duration(binary.BigEndian.Uint16(b[5:])) * time.Second
		if s.Code > lastCode {
			return nil, ErrMalformed
		}
	case RelayClose:
		s.SID = binary.BigEndian.Uint32(b)
	default:
		return nil, ErrMalformed
	}
	return s, nil
}

func (s *Signal) parseEndpoints(b []byte) error {
	count := int(b[1])
	if count > MaxEndpoints || len(b) != 2+count*addrSize {
		return ErrMalformed
	}
	s.NAT, b = b[0], b[2:]
	if count > 0 {
		s.Endpoints = make([]netip.AddrPort, 0, count)
	}
	for ; len(b) > 0; b = b[addrSize:] {
		ip := netip.AddrFrom16([16]byte(b)).Unmap()
		e := netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[16:]))
		if !callable(e) {
			return ErrMalformed
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return nil
}
