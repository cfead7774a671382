package discovery

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/pion/stun/v3"
)

// errSTUN is a packet that is no STUN message, or none that a server would send.
var errSTUN = errors.New("malformed STUN message")

// CHANGE-REQUEST asks a server to answer from its other address, its other port, or both (RFC 5780 §7.2).
const (
	changePort = 1 << 1
	changeAddr = 1 << 2
)

const (
	stunHeader = 20
	maxSTUN    = 1500
	stunCookie = 0x2112A442
)

// txID tells one try of one question from all others. Only who sees the request knows it.
type txID = [stun.TransactionIDSize]byte

func newTxID() (id txID) {
	rand.Read(id[:])
	return id
}

// bindingRequest is a request for our address as the server sees it (RFC 8489 §2).
func bindingRequest(id txID, change uint32) []byte {
	m := stun.New()
	m.TransactionID = id
	m.SetType(stun.BindingRequest)
	m.WriteHeader()
	if change != 0 {
		m.Add(stun.AttrChangeRequest, binary.BigEndian.AppendUint32(nil, change))
	}
	// Multiplexed ports know STUN by it (§7).
	if err := stun.Fingerprint.AddTo(m); err != nil {
		panic("discovery: " + err.Error()) // it fails for no message
	}
	return m.Raw
}

// stunID is the transaction of what may be a STUN message, by its header alone.
func stunID(pkt []byte) (id txID, request, ok bool) {
	if len(pkt) < stunHeader || len(pkt) > maxSTUN || binary.BigEndian.Uint32(pkt[4:8]) != stunCookie {
		return id, false, false
	}
	copy(id[:], pkt[8:stunHeader])
	return id, binary.BigEndian.Uint16(pkt) == stun.BindingRequest.Value(), true
}

// stunReply is what matters of a response.
type stunReply struct {
	mapped netip.AddrPort // where the server saw the request come from; zero in an error response
	other  netip.AddrPort // the server's other address and port (RFC 5780 §7.4); zero when it has none
	code   int            // of an error response
}

// parseReply reads a success or error response. It fails with errSTUN.
func parseReply(pkt []byte) (stunReply, error) {
	var r stunReply
	m := new(stun.Message)
	if stun.Decode(pkt, m) != nil || len(pkt) != stunHeader+int(m.Length) {
		return r, errSTUN
	}
	if m.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(m) != nil {
		return r, errSTUN
	}
	switch m.Type {
	case stun.BindingSuccess:
	case stun.BindingError:
		var code stun.ErrorCodeAttribute
		if code.GetFrom(m) != nil || code.Code < 300 || code.Code > 699 {
			return r, errSTUN
		}
		r.code = int(code.Code)
		return r, nil
	default:
		return r, errSTUN
	}
	v, err := m.Get(stun.AttrXORMappedAddress)
	if err == nil {
		r.mapped, err = stunAddr(v, pkt[4:stunHeader])
	} else if v, err = m.Get(stun.AttrMappedAddress); err == nil { // RFC 3489 servers
		r.mapped, err = stunAddr(v, nil)
	}
	if err != nil {
		return r, errSTUN
	}
	if v, err := m.Get(stun.AttrOtherAddress); err == nil {
		if r.other, err = stunAddr(v, nil); err != nil {
			return stunReply{}, errSTUN
		}
	}
	return r, nil
}

// stunAddr reads an address attribute (RFC 8489 §14.1, §14.2); mask is the cookie and the transaction of one that is
// XORed. Addresses that nobody can be behind are errSTUN.
func stunAddr(v, mask []byte) (netip.AddrPort, error) {
	const family4, family6 = 1, 2
	ok := len(v) == 8 && v[1] == family4 || len(v) == 20 && v[1] == family6
	if !ok {
		return netip.AddrPort{}, errSTUN
	}
	raw := append([]byte(nil), v[2:]...)
	if mask != nil {
		raw[0] ^= mask[0]
		raw[1] ^= mask[1]
		for i := range raw[2:] {
			raw[2+i] ^= mask[i]
		}
	}
	ip, _ := netip.AddrFromSlice(raw[2:])
	ap := netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(raw))
	if ap.Port() == 0 || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.AddrPort{}, errSTUN
	}
	return ap, nil
}
