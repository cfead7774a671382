package main

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tcpFIN, tcpPSH, tcpACK = 1, 8, 16

	mergeBytes  = 65500 // in one packet for the device
	mergePieces = 64
)

// receiver opens datagrams and hands them to the device. Neighbouring segments of a flow go as one packet with one
// system call. They are told apart by their headers alone, without a look at the inner checksums: the seal vouches
// for them. Owned by its loop.
type receiver struct {
	tun  int
	aead cipher.AEAD // nil: none

	nonce  [chachaNonce]byte
	vnet   [vnetHeader]byte
	pieces []unix.Iovec // vnet, the first packet, the payloads behind it; borrowed from the receive buffer
	first  []byte       // the first packet; nil: none
	header int          // its bytes before the payload
	length int          // payload so far
	size   int          // of the first payload, and so of all but the last
	next   uint32       // TCP's sequence number behind it
	open   bool         // more may follow
}

// run takes what the socket gives: datagrams, or runs of them of one size.
func (r *receiver) run(socket int) error {
	buf, control := make([]byte, deviceRead), make([]byte, 64)
	for {
		n, cn, _, _, err := unix.Recvmsg(socket, buf, control, 0)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNREFUSED) {
			continue // the peer is not there yet
		}
		if err != nil {
			return err
		}
		size := n
		if cn >= unix.CmsgLen(4) {
			size = int(binary.NativeEndian.Uint32(control[unix.CmsgLen(0):]))
		}
		for p := buf[:n]; len(p) > 0; {
			k := min(len(p), max(size, 1))
			r.datagram(p[:k])
			p = p[k:]
		}
		r.flush()
	}
}

func (r *receiver) datagram(d []byte) {
	if len(d) <= outerHeader+20 {
		return
	}
	if r.aead == nil {
		r.packet(d[outerHeader:])
		return
	}
	nonce(r.nonce[:], binary.LittleEndian.Uint64(d[8:]))
	if p, err := r.aead.Open(d[outerHeader:outerHeader], r.nonce[:], d[outerHeader:], nil); err == nil && len(p) > 20 {
		r.packet(p)
	}
}

// segment is the part of a packet's headers that merging goes by.
type segment struct {
	header, payload int
	seq             uint32
	push            bool
}

// parseSegment reads a packet that may be merged: IPv4 without options, not a fragment, UDP or TCP with nothing but
// ACK and PSH, and a payload.
func parseSegment(p []byte) (s segment, ok bool) {
	if len(p) < 28 || p[0] != 0x45 || p[6]&0x3f != 0 || p[7] != 0 || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
		return s, false
	}
	switch p[9] {
	case unix.IPPROTO_UDP:
		s.header = 28
	case unix.IPPROTO_TCP:
		if len(p) < 40 || p[33]&^tcpPSH != tcpACK {
			return s, false
		}
		s.header = 20 + int(p[32]>>4)*4
		s.seq = binary.BigEndian.Uint32(p[24:])
		s.push = p[33]&tcpPSH != 0
	default:
		return s, false
	}
	s.payload = len(p) - s.header
	return s, s.payload > 0
}

func (r *receiver) packet(p []byte) {
	s, ok := parseSegment(p)
	if ok && r.follows(p, s) {
		r.pieces = append(r.pieces, piece(p[s.header:]))
		r.length += s.payload
		r.next += uint32(s.payload)
		r.open = s.payload == r.size && !s.push
		if s.push {
			r.first[33] |= tcpPSH
		}
		return
	}
	r.flush()
	r.pieces = append(r.pieces[:0], piece(r.vnet[:]), piece(p))
	r.first, r.header, r.length, r.size = p, s.header, s.payload, s.payload
	r.next = s.seq + uint32(s.payload)
	r.open = ok && !s.push
}

// follows reports whether a packet continues what was gathered.
func (r *receiver) follows(p []byte, s segment) bool {
	f := r.first
	if f == nil || !r.open || r.header != s.header || s.payload > r.size || len(r.pieces) > mergePieces ||
		r.header+r.length+s.payload > mergeBytes {
		return false
	}
	if f[9] != p[9] || f[1] != p[1] || f[8] != p[8] || !bytes.Equal(f[12:24], p[12:24]) {
		return false // protocol, type of service, time to live, addresses and ports
	}
	return p[9] == unix.IPPROTO_UDP || s.seq == r.next &&
		bytes.Equal(f[28:32], p[28:32]) && // acknowledgement
		bytes.Equal(f[34:36], p[34:36]) && // receive window
		bytes.Equal(f[40:r.header], p[40:s.header]) // options
}

// flush writes what was gathered. What the device refuses is lost, as on a wire.
func (r *receiver) flush() {
	if r.first == nil {
		return
	}
	clear(r.vnet[:])
	if len(r.pieces) > 2 {
		r.merge()
	}
	_, _, _ = unix.Syscall(unix.SYS_WRITEV, uintptr(r.tun), uintptr(unsafe.Pointer(&r.pieces[0])), uintptr(len(r.pieces)))
	r.first, r.pieces = nil, r.pieces[:0]
}

// merge makes the first packet's headers those of the whole, and leaves the checksum to the kernel.
func (r *receiver) merge() {
	p := r.first
	total := r.header + r.length
	binary.BigEndian.PutUint16(p[2:], uint16(total))
	sealHeader(p[:20])
	kind, offset := byte(unix.VIRTIO_NET_HDR_GSO_TCPV4), 16
	if p[9] == unix.IPPROTO_UDP {
		kind, offset = unix.VIRTIO_NET_HDR_GSO_UDP_L4, 6
		binary.BigEndian.PutUint16(p[24:], uint16(total-20))
	}
	r.vnet[0], r.vnet[1] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, kind
	binary.NativeEndian.PutUint16(r.vnet[2:], uint16(r.header))
	binary.NativeEndian.PutUint16(r.vnet[4:], uint16(r.size))
	binary.NativeEndian.PutUint16(r.vnet[6:], 20)
	binary.NativeEndian.PutUint16(r.vnet[8:], uint16(offset))
	binary.NativeEndian.PutUint16(p[20+offset:], fold(pseudoHeader(p, p[9], total-20)))
}

func piece(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}
