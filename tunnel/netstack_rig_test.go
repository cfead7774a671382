package tunnel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// plainSum is the Internet checksum over all parts as one, the slow way: 0xffff when the checksum within is right.
func plainSum(parts ...[]byte) uint16 {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	var sum uint64
	for i, b := range all {
		if i%2 == 0 {
			sum += uint64(b) << 8
		} else {
			sum += uint64(b)
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// sound says what is wrong with the lengths and checksums of a packet; what names its protocol.
func sound(pkt []byte) (what string, err error) {
	var addrs, l4 []byte
	var proto byte
	switch pkt[0] >> 4 {
	case 4:
		n := int(pkt[0]&15) * 4
		if int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) || plainSum(pkt[:n]) != 0xffff {
			return "", fmt.Errorf("IPv4 header %x of %d bytes", pkt[:n], len(pkt))
		}
		if binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			return "fragment4", nil
		}
		addrs, l4, proto = pkt[12:20], pkt[n:], pkt[9]
	case 6:
		if int(binary.BigEndian.Uint16(pkt[4:]))+40 != len(pkt) {
			return "", fmt.Errorf("IPv6 header %x of %d bytes", pkt[:40], len(pkt))
		}
		addrs, l4, proto = pkt[8:40], pkt[40:], pkt[6]
	}
	version := string('0' + rune(pkt[0]>>4))
	pseudo := append(binary.BigEndian.AppendUint32(append([]byte(nil), addrs...), uint32(len(l4))), 0, 0, 0, proto)
	switch proto {
	case 6:
		what = "tcp" + version
	case 17:
		what = "udp" + version
		if int(binary.BigEndian.Uint16(l4[4:])) != len(l4) || l4[6]|l4[7] == 0 {
			return what, fmt.Errorf("UDP header %x of %d bytes", l4[:8], len(l4))
		}
	case 58:
		what = "icmp6"
	case 1:
		what, pseudo = "icmp4", nil
	case 44:
		return "fragment6", nil
	default:
		return "", fmt.Errorf("protocol %d", proto)
	}
	if s := plainSum(pseudo, l4); s != 0xffff {
		return what, fmt.Errorf("%s of %d bytes: sum %#x", what, len(pkt), s)
	}
	return what, nil
}

// tcpData is the sequence number and payload of a TCP packet without IP options.
func tcpData(pkt []byte) (seq uint32, payload []byte) {
	t := pkt[20:]
	if pkt[0]>>4 == 6 {
		t = pkt[40:]
	}
	return binary.BigEndian.Uint32(t[4:]), t[int(t[12]>>4)*4:]
}

// segmentOf is a TCP segment as the stack hands it to the link, with the sum of the pseudo header only.
func segmentOf(src, dst netip.Addr, seq uint32, payload []byte, mss uint16) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: 60, Payload: buffer.MakeWithData(payload),
	})
	size := uint16(header.TCPMinimumSize + len(payload))
	from, to := tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice())
	t := header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize))
	t.Encode(&header.TCPFields{
		SrcPort: 1, DstPort: 2, SeqNum: seq, DataOffset: header.TCPMinimumSize,
		Flags: header.TCPFlagAck | header.TCPFlagPsh, WindowSize: 1000,
		Checksum: header.PseudoHeaderChecksum(header.TCPProtocolNumber, from, to, size),
	})
	pkt.GSOOptions = stack.GSO{
		Type: stack.GSOTCPv6, NeedsCsum: true, CsumOffset: header.TCPChecksumOffset, MSS: mss,
		L3HdrLen: header.IPv6MinimumSize, MaxSize: 64 << 10,
	}
	if src.Is4() {
		pkt.GSOOptions.Type, pkt.GSOOptions.L3HdrLen = stack.GSOTCPv4, header.IPv4MinimumSize
		h := header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize))
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(h)) + size, TTL: 64, Protocol: 6, SrcAddr: from, DstAddr: to,
			Flags: header.IPv4FlagDontFragment,
		})
		h.SetChecksum(^h.CalculateChecksum())
		return pkt
	}
	header.IPv6(pkt.NetworkHeader().Push(header.IPv6MinimumSize)).Encode(&header.IPv6Fields{
		PayloadLength: size, TransportProtocol: 6, HopLimit: 64, SrcAddr: from, DstAddr: to,
	})
	return pkt
}

// hand gives a writer packets as the stack does, and releases them.
func hand(t testing.TB, w *stackWriter, pkts ...*stack.PacketBuffer) tcpip.Error {
	t.Helper()
	var list stack.PacketBufferList
	for _, p := range pkts {
		list.PushBack(p)
	}
	defer list.Reset()
	n, err := w.write(list)
	if err == nil && n != len(pkts) {
		t.Errorf("%d of %d packets taken", n, len(pkts))
	}
	return err
}

// carries fails unless packets are sound and carry the bytes want from seq on, each at most mtu long.
func carries(t *testing.T, pkts [][]byte, seq uint32, want []byte, mtu int) {
	t.Helper()
	for i, p := range pkts {
		what, err := sound(p)
		if err != nil || what[:3] != "tcp" {
			t.Errorf("packet %d: %s %v", i, what, err)
		}
		at, payload := tcpData(p)
		if at != seq || len(payload) > len(want) || string(payload) != string(want[:len(payload)]) || len(p) > mtu {
			t.Fatalf("packet %d of %d: %d bytes from %d, want %d", i, len(pkts), len(p), at, seq)
		}
		seq, want = seq+uint32(len(payload)), want[len(payload):]
	}
	if len(want) > 0 {
		t.Errorf("%d bytes are missing", len(want))
	}
}
