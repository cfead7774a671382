package portmap

import (
	"encoding/binary"
	"net/netip"
)

// NAT-PMP, RFC 6886 §3. All numbers in network order.
//
//	address   0 | 0                                          ─▶ 0 | 0x80 | result 2 | epoch 4 | outside address 4
//	map       0 | 1 | 0 0 | inside 2 | outside 2 | lifetime 4 ─▶ 0 | 0x81 | result 2 | epoch 4 | inside 2 | outside 2 | lifetime 4
const (
	pmpVersion  = 0
	pmpAddress  = 0
	pmpMapUDP   = 1
	pmpResponse = 0x80

	pmpSuccess            = 0
	pmpUnsupportedVersion = 1
)

// pmpAddressRequest asks for the router's outside address.
func pmpAddressRequest() []byte { return []byte{pmpVersion, pmpAddress} }

// pmpMapRequest asks for a UDP mapping to the sender's address, or with lifetime and want 0 for its end.
func pmpMapRequest(port, want uint16, lifetime uint32) []byte {
	pkt := []byte{pmpVersion, pmpMapUDP, 0, 0}
	pkt = binary.BigEndian.AppendUint16(pkt, port)
	pkt = binary.BigEndian.AppendUint16(pkt, want)
	return binary.BigEndian.AppendUint32(pkt, lifetime)
}

// pmpAnswer is a response. All but opcode and result are zero in one of failure.
type pmpAnswer struct {
	opcode   byte
	result   uint16
	epoch    uint32     // seconds since the router lost its mappings
	address  netip.Addr // outside
	port     uint16     // inside
	outside  uint16
	lifetime uint32 // seconds
}

// parsePMP reads a response. It fails with errAnswer.
func parsePMP(pkt []byte) (pmpAnswer, error) {
	if len(pkt) < 4 || len(pkt) > maxPCP || pkt[0] != pmpVersion || pkt[1]&pmpResponse == 0 {
		return pmpAnswer{}, errAnswer
	}
	a := pmpAnswer{opcode: pkt[1] &^ pmpResponse, result: binary.BigEndian.Uint16(pkt[2:])}
	switch {
	case a.result != pmpSuccess:
		return a, nil
	case a.opcode == pmpAddress && len(pkt) == 12:
		a.address = netip.AddrFrom4([4]byte(pkt[8:]))
	case a.opcode == pmpMapUDP && len(pkt) == 16:
		a.port, a.outside = binary.BigEndian.Uint16(pkt[8:]), binary.BigEndian.Uint16(pkt[10:])
		a.lifetime = binary.BigEndian.Uint32(pkt[12:])
	default:
		return pmpAnswer{}, errAnswer
	}
	a.epoch = binary.BigEndian.Uint32(pkt[4:])
	return a, nil
}
