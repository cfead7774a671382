package wg

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/replay"

	"github.com/meshnet/meshnet/tunnel/noise"
)

// The shape of a transport datagram (§5.4.6): type 1, zero 3, receiver 4, counter 8, packet padded to 16, tag 16.
const (
	HeaderSize = 16
	TagSize    = 16
	Overhead   = HeaderSize + TagSize
	padding    = 16
)

// ErrForged is for a datagram that the session's key does not open.
var ErrForged = errors.New("wg: not sealed by the peer")

// Nonce is the memory of a nonce, one for each goroutine that seals or opens.
type Nonce = [12]byte

// Session is a pair of transport keys. Its methods are safe for concurrent use; Seal and Open only between acquiring it
// (Peer.Acquire, Table.Acquire) and Release.
type Session struct {
	Peer      *Peer
	local     uint32 // index that the other side sends to
	remote    uint32
	born      int64 // as Clock.At
	initiator bool  // we began it

	// Owned by the machine.
	began, ended uint64   // when its handshake did, in the machine's own count
	mac1         [16]byte // of our response, which a cookie may come for
	yieldedTo    *Session // of theirs, which crossed with it and goes first

	send, receive key
	counter       atomic.Uint64 // of the next datagram
	confirmed     atomic.Bool   // the other side has it too
	decided       atomic.Bool   // the machine knows that, and what to send with from now on
	users         atomic.Int32
	dead          atomic.Bool

	mu     sync.Mutex
	window replay.Filter // guarded by mu
}

// acquire keeps the keys until release; false: the session is over.
func (s *Session) acquire() bool {
	s.users.Add(1)
	if s.dead.Load() {
		s.users.Add(-1)
		return false
	}
	return true
}

// Release ends the use that Acquire began.
func (s *Session) Release() { s.users.Add(-1) }

// Decided reports whether the machine took up what the first packet under the session said: which session answers go
// under.
func (s *Session) Decided() bool { return s.decided.Load() || s.dead.Load() }

// wipe erases the keys of a dead session once nobody uses them, and reports whether it did.
func (s *Session) wipe() bool {
	if !s.dead.Load() || s.users.Load() != 0 {
		return false
	}
	s.send.wipe()
	s.receive.wipe()
	return true
}

// Padded is the size of a packet with its padding (§5.4.6), which never makes it longer than the largest packet.
func Padded(size, mtu int) int {
	padded := (size + padding - 1) &^ (padding - 1)
	if padded > mtu {
		return max(size, mtu)
	}
	return padded
}

// Reserve takes the counters of n datagrams and returns the first; false: the session is used up, for good: the counter
// stays far from where it would begin anew.
func (s *Session) Reserve(n int) (first uint64, ok bool) {
	if s.counter.Load() >= RejectAfterMessages {
		return 0, false
	}
	end := s.counter.Add(uint64(n))
	return end - uint64(n), end <= RejectAfterMessages
}

// Seal makes buf a transport datagram in place. Before, buf[HeaderSize:HeaderSize+size] is the padded packet, and there
// is room for the tag behind it. It returns the datagram's length.
func (s *Session) Seal(n *Nonce, buf []byte, size int, counter uint64) int {
	noise.PutDataHeader(buf, s.remote, counter)
	*n = noise.Nonce(counter)
	s.send.Seal(buf[HeaderSize:HeaderSize], n[:], buf[HeaderSize:HeaderSize+size], nil)
	return size + Overhead
}

// Open decrypts a datagram in place and returns the padded packet inside. Fresh must be asked next.
func (s *Session) Open(n *Nonce, datagram []byte) (packet []byte, counter uint64, err error) {
	counter = noise.Counter(datagram)
	*n = noise.Nonce(counter)
	packet, err = s.receive.Open(datagram[HeaderSize:HeaderSize], n[:], datagram[HeaderSize:], nil)
	if err != nil {
		return nil, 0, ErrForged
	}
	return packet, counter, nil
}

// Fresh takes the counters of datagrams that Open opened and sets stale of those that came before or are too old to
// tell (RFC 6479). stale is as long as counters.
func (s *Session) Fresh(counters []uint64, stale []bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range counters {
		stale[i] = !s.window.ValidateCounter(c, RejectAfterMessages)
	}
}

// old reports whether who sends under the session at a time has to begin a new one: its initiator from 120 s on, the
// other side only when that did not happen.
func (s *Session) old(at int64) bool {
	age := at - s.born
	return age >= int64(RekeyAfterTime) && (s.initiator || age >= int64(lateRekey)) ||
		s.counter.Load() >= RekeyAfterMessages
}

// usable reports whether the session may carry packets at a time.
func (s *Session) usable(at int64) bool {
	return at-s.born < int64(RejectAfterTime) && s.counter.Load() < RejectAfterMessages
}
