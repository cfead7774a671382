package linux

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// meta is what the packet's key holds, nil when that is unknown.
func (e *evaluation) meta(key expr.MetaKey) []byte {
	p := e.packet
	switch key {
	case expr.MetaKeyIIFNAME:
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, p.link)
		return name
	case expr.MetaKeyIIF:
		if p.linkIndex == 0 {
			return nil
		}
		return binary.NativeEndian.AppendUint32(nil, p.linkIndex)
	case expr.MetaKeyL4PROTO:
		return []byte{p.protocol}
	case expr.MetaKeyNFPROTO:
		return []byte{unix.NFPROTO_IPV4}
	case expr.MetaKeyPROTOCOL:
		return []byte{0x08, 0x00} // EtherType of IPv4
	}
	return nil
}

// ctState is a new flow's.
func ctState(key expr.CtKey) []byte {
	if key != expr.CtKeySTATE {
		return nil
	}
	return binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW)
}

// payload is a field of the packet's headers. Ports and the protocol are known, addresses are not.
func (e *evaluation) payload(x *expr.Payload) []byte {
	switch {
	case x.OperationType != expr.PayloadLoad:
	case x.Base == expr.PayloadBaseTransportHeader && x.Offset == 2 && x.Len == 2:
		return binary.BigEndian.AppendUint16(nil, e.packet.port)
	case x.Base == expr.PayloadBaseNetworkHeader && x.Offset == 9 && x.Len == 1:
		return []byte{e.packet.protocol}
	}
	return nil
}
