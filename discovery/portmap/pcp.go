package portmap

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// errAnswer is a packet that no router would send, or not to us.
var errAnswer = errors.New("malformed answer")

// PCP, RFC 6887 §7 and §11. All numbers in network order; addresses are IPv6, those of IPv4 mapped into it.
//
//	request   2 | opcode | 0 0 | lifetime 4 | our address 16 | …
//	response  2 | 0x80+opcode | 0 | result | lifetime 4 | epoch 4 | 0 ×12 | …
//	MAP       … nonce 12 | protocol | 0 0 0 | inside port 2 | outside port 2 | outside address 16
const (
	pcpVersion  = 2
	pcpAnnounce = 0
	pcpMap      = 1
	pcpResponse = 0x80
	pcpHeader   = 24
	pcpMapSize  = pcpHeader + 36
	maxPCP      = 1100
	protoUDP    = 17

	pcpSuccess            = 0
	pcpUnsupportedVersion = 1
)

// pcpAnnounceRequest asks nothing but whether there is a server.
func pcpAnnounceRequest(self netip.Addr) []byte { return pcpHead(pcpAnnounce, 0, self) }

func pcpHead(opcode byte, lifetime uint32, self netip.Addr) []byte {
	pkt := []byte{pcpVersion, opcode, 0, 0}
	pkt = binary.BigEndian.AppendUint32(pkt, lifetime)
	ip := self.As16()
	return append(pkt, ip[:]...)
}

// pcpMapRequest asks for a UDP mapping, or with lifetime 0 for its end. want is the outside address that is liked
// best; its parts may be zero.
func pcpMapRequest(self netip.Addr, nonce [12]byte, port uint16, want netip.AddrPort, lifetime uint32) []byte {
	pkt := append(pcpHead(pcpMap, lifetime, self), nonce[:]...)
	pkt = append(pkt, protoUDP, 0, 0, 0)
	pkt = binary.BigEndian.AppendUint16(pkt, port)
	pkt = binary.BigEndian.AppendUint16(pkt, want.Port())
	ip := netip.IPv4Unspecified().As16()
	if want.Addr().IsValid() {
		ip = want.Addr().As16()
	}
	return append(pkt, ip[:]...)
}

// pcpAnswer is a response to ANNOUNCE or MAP. The fields of a mapping are zero unless it is one of success.
type pcpAnswer struct {
	opcode   byte
	result   byte
	lifetime uint32 // seconds; of an error: how long not to ask again
	epoch    uint32 // seconds since the router lost its mappings

	nonce    [12]byte
	port     uint16
	external netip.AddrPort
}

// parsePCP reads a response. It fails with errAnswer.
func parsePCP(pkt []byte) (pcpAnswer, error) {
	if len(pkt) < pcpHeader || len(pkt) > maxPCP || len(pkt)%4 != 0 || pkt[0] != pcpVersion || pkt[1]&pcpResponse == 0 {
		return pcpAnswer{}, errAnswer
	}
	a := pcpAnswer{
		opcode: pkt[1] &^ pcpResponse, result: pkt[3],
		lifetime: binary.BigEndian.Uint32(pkt[4:]), epoch: binary.BigEndian.Uint32(pkt[8:]),
	}
	switch {
	case a.opcode == pcpAnnounce:
		return a, nil
	case a.opcode != pcpMap:
		return pcpAnswer{}, errAnswer
	case len(pkt) < pcpMapSize && a.result == pcpSuccess:
		return pcpAnswer{}, errAnswer
	case len(pkt) < pcpMapSize:
		return a, nil // some routers cut their errors short
	case pkt[36] != protoUDP:
		return pcpAnswer{}, errAnswer
	}
	copy(a.nonce[:], pkt[24:36])
	a.port = binary.BigEndian.Uint16(pkt[40:])
	if a.result != pcpSuccess {
		return a, nil
	}
	ip, _ := netip.AddrFromSlice(pkt[44:60])
	a.external = netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(pkt[42:]))
	return a, nil
}
