package relayserver

import (
	"encoding/binary"
	"net/netip"

	"github.com/pion/stun/v3"
)

// The responder answers binding requests (RFC 8489 §3) with the address they came from. On a second port next to the
// first it also tells what a client's NAT does with ports (RFC 5780): CHANGE-REQUEST has the answer sent from the other
// port, OTHER-ADDRESS names it. It has one address, so a request to change that is refused.
//
// It keeps nothing. An answer is at most maxAnswer bytes, whatever was asked.
const (
	minRequest   = 20
	maxRequest   = 576 // RFC 8489 §6.1: what fits everywhere
	maxAnswer    = 108
	changeIP     = 0x04 // RFC 5780 §7.2
	changePort   = 0x02
	unknownBound = 4 // attributes named in a refusal
)

// A request in the terms of a responder: where it came from, and at which of the two ports it arrived.
type stunRequest struct {
	data  []byte
	from  netip.AddrPort
	at    netip.AddrPort // the address is unspecified where the system does not tell
	other uint16         // the second port; 0: there is none
}

// stunAnswer is what to send, from which port.
type stunAnswer struct {
	data      []byte
	fromOther bool
}

// isBindingRequest tells cheaply, as the port hears everything that the internet sends.
func isBindingRequest(data []byte) bool {
	return len(data) >= minRequest && len(data) <= maxRequest && len(data)%4 == 0 &&
		binary.BigEndian.Uint16(data) == 0x0001 && int(binary.BigEndian.Uint16(data[2:])) == len(data)-minRequest &&
		binary.BigEndian.Uint32(data[4:]) == 0x2112A442
}

// answerSTUN answers a request that isBindingRequest; false: it deserves none.
func answerSTUN(req stunRequest) (stunAnswer, bool) {
	m := &stun.Message{Raw: req.data}
	if m.Decode() != nil {
		return stunAnswer{}, false
	}
	fingerprint := m.Contains(stun.AttrFingerprint)
	if fingerprint && stun.Fingerprint.Check(m) != nil {
		return stunAnswer{}, false
	}
	flags, unknown := readAttributes(m, req.other != 0)
	var setters []stun.Setter
	if len(unknown) > 0 {
		setters = append(setters, stun.NewType(stun.MethodBinding, stun.ClassErrorResponse),
			stun.ErrorCodeAttribute{Code: stun.CodeUnknownAttribute}, unknown)
	} else {
		setters = append(setters, stun.BindingSuccess, &stun.XORMappedAddress{IP: req.from.Addr().AsSlice(), Port: int(req.from.Port())})
		setters = append(setters, origin(req, flags)...)
	}
	if fingerprint {
		setters = append(setters, stun.Fingerprint)
	}
	answer, err := stun.Build(append([]stun.Setter{stun.NewTransactionIDSetter(m.TransactionID)}, setters...)...)
	if err != nil {
		return stunAnswer{}, false
	}
	return stunAnswer{answer.Raw, len(unknown) == 0 && flags&changePort != 0}, true
}

// origin is where the answer comes from, and which other address there is (RFC 5780 §7.3, §7.4).
func origin(req stunRequest, flags uint32) []stun.Setter {
	if req.other == 0 || req.at.Addr().IsUnspecified() {
		return nil
	}
	ip := req.at.Addr().AsSlice()
	from := int(req.at.Port())
	if flags&changePort != 0 {
		from = int(req.other)
	}
	return []stun.Setter{
		&stun.ResponseOrigin{IP: ip, Port: from},
		&stun.OtherAddress{IP: ip, Port: int(req.other)},
	}
}

// readAttributes finds the flags of CHANGE-REQUEST, and what has to be understood and is not.
func readAttributes(m *stun.Message, change bool) (flags uint32, unknown stun.UnknownAttributes) {
	for _, a := range m.Attributes {
		switch {
		case a.Type == stun.AttrChangeRequest && len(a.Value) == 4:
			flags = binary.BigEndian.Uint32(a.Value)
			if flags&changeIP != 0 || flags&changePort != 0 && !change {
				unknown = append(unknown, a.Type)
			}
		case a.Type.Optional(), a.Type == stun.AttrUsername, a.Type == stun.AttrMessageIntegrity, a.Type == stun.AttrPriority:
			// Of no meaning here: everybody is answered, whoever they say they are.
		case len(unknown) < unknownBound:
			unknown = append(unknown, a.Type)
		}
	}
	return flags, unknown
}
