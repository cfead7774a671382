package offload

import (
	"encoding/binary"
	"errors"
)

// writeSuper writes a superpacket, or the packet that goes alone.
func (j *Join) writeSuper(s *super) {
	first := &j.segs[s.head]
	if s.count == 1 {
		j.writeAlone(first)
		return
	}
	was := keep(first)
	j.header = superHeader(first, s, j.segs[s.tail].pkt)
	j.bufs = append(j.bufs[:0], j.header[:], first.pkt)
	for i := first.next; i >= 0; i = j.segs[i].next {
		j.bufs = append(j.bufs, j.segs[i].payload())
	}
	err := j.write(j.bufs)
	k := j.kind(first.kind)
	switch {
	case err == nil:
		k.refused = 0
		j.stats.Writes++
		j.stats.Joined += uint64(s.count)
	case errors.Is(err, ErrRefused):
		j.stats.Refused++
		k.refused++
		k.on = k.on && k.refused < refusals
		was.restore(first)
		for i := s.head; i >= 0; i = j.segs[i].next {
			j.writeAlone(&j.segs[i])
		}
	default:
		j.failed(err, uint64(s.count))
	}
}

// writeAlone writes a packet as it came, for the kernel to verify.
func (j *Join) writeAlone(g *segment) {
	j.header = [HeaderLen]byte{}
	j.bufs = append(j.bufs[:0], j.header[:], g.pkt)
	if err := j.write(j.bufs); err != nil {
		j.failed(err, 1)
		return
	}
	j.stats.Writes++
}

// superHeader turns the header of the first segment into that of the superpacket (lengths, PSH of the last segment,
// checksum of the pseudo header only) and returns the virtio-net header that goes in front.
func superHeader(first *segment, s *super, last []byte) (buf [HeaderLen]byte) {
	p, t := first.pkt, first.pkt[first.l4:first.hl]
	size := uint16(s.total - first.l4)
	if p[0]>>4 == 4 {
		binary.BigEndian.PutUint16(p[2:], uint16(s.total))
		putIPv4Sum(p[:first.l4])
	} else {
		binary.BigEndian.PutUint16(p[4:], size)
	}
	h := header{
		flags: flagNeedsCsum, gsoType: first.kind,
		hdrLen: uint16(first.hl), gsoSize: uint16(s.size), csumStart: uint16(first.l4), csumOffset: tcpCsum,
	}
	if first.kind == gsoUDPL4 {
		h.csumOffset = udpCsum
		binary.BigEndian.PutUint16(t[4:], size)
	} else {
		t[13] |= last[first.l4+13] & tcpPSH
	}
	v := fold(add(pseudo(p, protocol(p)), word16(size)))
	binary.NativeEndian.PutUint16(t[h.csumOffset:], v)
	h.put(buf[:])
	return buf
}

// headers are those of a first segment before they became a superpacket's.
type headers struct {
	ip  [ipv6Len]byte
	tcp [tcpLen]byte
}

// keep copies what superHeader changes.
func keep(g *segment) (h headers) {
	copy(h.ip[:], g.pkt[:g.l4])
	copy(h.tcp[:], g.pkt[g.l4:g.hl])
	return h
}

// restore undoes superHeader.
func (h *headers) restore(g *segment) {
	copy(g.pkt[:g.l4], h.ip[:])
	copy(g.pkt[g.l4:g.hl], h.tcp[:])
}
