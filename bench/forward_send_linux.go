package main

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits of what is gathered before it is sent.
const (
	gatherReads     = 64
	gatherBytes     = 256 << 10 // stays in the second-level cache
	gatherDatagrams = 256
	runDatagrams    = 64    // in one UDP_SEGMENT send
	runBytes        = 65507 // in one UDP_SEGMENT send
)

// sender takes packets off the device and sends them: it reads until nothing is left, copies each packet or segment
// into one arena, seals it there, and sends runs of equally long datagrams with one system call. Owned by its loop.
type sender struct {
	tun, socket int
	aead        cipher.AEAD // nil: none
	counter     uint64
	nonce       [chachaNonce]byte
	arena       []byte
	lengths     []int // of the datagrams in arena
	control     []byte
}

const chachaNonce = 12

func newSender(tun, socket int, aead cipher.AEAD) *sender {
	s := &sender{tun: tun, socket: socket, aead: aead, arena: make([]byte, 0, 1<<20)}
	s.control = make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&s.control[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	return s
}

func (s *sender) run() error {
	buf := make([]byte, deviceRead)
	poll := []unix.PollFd{{Fd: int32(s.tun), Events: unix.POLLIN}}
	for {
		for range gatherReads {
			n, err := unix.Read(s.tun, buf)
			if err != nil {
				if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
					break
				}
				return err
			}
			s.packet(buf[:n])
			if len(s.arena) >= gatherBytes || len(s.lengths) >= gatherDatagrams {
				break
			}
		}
		if len(s.lengths) > 0 {
			s.flush()
			continue
		}
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// packet takes what one read of the device gave: a virtio_net_hdr and a packet, which may be many segments.
func (s *sender) packet(b []byte) {
	if len(b) < vnetHeader+20 {
		return
	}
	flags, kind := b[0], b[1]
	size := int(binary.NativeEndian.Uint16(b[4:]))
	start, offset := int(binary.NativeEndian.Uint16(b[6:])), int(binary.NativeEndian.Uint16(b[8:]))
	p := b[vnetHeader:]
	switch {
	case kind == unix.VIRTIO_NET_HDR_GSO_NONE:
		if flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 && start+offset+2 <= len(p) {
			// The field holds the pseudo-header's sum already.
			binary.NativeEndian.PutUint16(p[start+offset:], ^fold(sum(p[start:], 0)))
		}
		copy(s.room(len(p)), p)
		s.seal(len(p))
	case p[0]>>4 == 4 && size > 0:
		s.split(p, size)
	}
}

// split cuts a TCP or UDP packet into segments of size payload bytes.
func (s *sender) split(p []byte, size int) {
	ip := int(p[0]&15) * 4
	tcp := p[9] == unix.IPPROTO_TCP
	header := ip + 8
	if tcp {
		header = ip + int(p[ip+12]>>4)*4
	}
	if header > len(p) {
		return
	}
	id, seq := binary.BigEndian.Uint16(p[4:]), binary.BigEndian.Uint32(p[ip+4:])
	for at, k := header, 0; at < len(p); k++ {
		n := min(size, len(p)-at)
		q := s.room(header + n)
		copy(q, p[:header])
		copy(q[header:], p[at:at+n])
		at += n
		binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
		binary.BigEndian.PutUint16(q[4:], id+uint16(k))
		sealHeader(q[:ip])
		field := ip + 6
		if tcp {
			field = ip + 16
			binary.BigEndian.PutUint32(q[ip+4:], seq+uint32(k*size))
			if at < len(p) {
				q[ip+13] &^= tcpFIN | tcpPSH // they belong to the last one
			}
		} else {
			binary.BigEndian.PutUint16(q[ip+4:], uint16(8+n))
		}
		q[field], q[field+1] = 0, 0
		check := ^fold(sum(q[ip:], pseudoHeader(q, q[9], len(q)-ip)))
		if check == 0 && !tcp {
			check = 0xffff // RFC 768: 0 means none
		}
		binary.NativeEndian.PutUint16(q[field:], check)
		s.seal(header + n)
	}
}

// room is where the next datagram's n bytes of plaintext go. It has space for the tag behind it.
func (s *sender) room(n int) []byte {
	at := len(s.arena) + outerHeader
	return s.arena[at : at+n : at+n+chachaTag]
}

const chachaTag = 16

// seal makes a datagram of the n bytes that were put into room.
func (s *sender) seal(n int) {
	at := len(s.arena)
	d := s.arena[at : at+outerHeader+n+chachaTag]
	s.counter++
	clear(d[:8])
	d[0] = 4
	binary.LittleEndian.PutUint64(d[8:], s.counter)
	length := outerHeader + n
	if s.aead != nil {
		nonce(s.nonce[:], s.counter)
		length = outerHeader + len(s.aead.Seal(d[outerHeader:outerHeader], s.nonce[:], d[outerHeader:length], nil))
	}
	s.arena = s.arena[:at+length]
	s.lengths = append(s.lengths, length)
}

// flush sends the arena. What the kernel refuses is lost, as on a wire.
func (s *sender) flush() {
	at := 0
	for i := 0; i < len(s.lengths); {
		size, total, j := s.lengths[i], s.lengths[i], i+1
		for j < len(s.lengths) && j-i < runDatagrams && s.lengths[j] <= size && total+s.lengths[j] <= runBytes {
			total += s.lengths[j]
			j++
			if s.lengths[j-1] < size {
				break // only the last one may be shorter
			}
		}
		if j-i > 1 {
			binary.NativeEndian.PutUint16(s.control[unix.CmsgLen(0):], uint16(size))
			_, _ = unix.SendmsgN(s.socket, s.arena[at:at+total], s.control, nil, 0)
		} else {
			_, _ = unix.Write(s.socket, s.arena[at:at+total])
		}
		at += total
		i = j
	}
	s.arena, s.lengths = s.arena[:0], s.lengths[:0]
}
