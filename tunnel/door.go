package tunnel

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
)

const (
	// doorQueue is how many handshake messages wait for the owner. When full, the newest is dropped.
	doorQueue = 512
	// doorBusy is how many may wait before the node counts as under load, for loadedFor at least: 64 initiations are
	// about 10 ms of one core.
	doorBusy  = 64
	loadedFor = time.Second
	// Initiations of one /24 or /56 that are answered under load, each with a good cookie.
	doorRate, doorBurst = 200, 50
	// Those of all members behind relay servers together. The server vouches for who sends, so there is no cookie.
	doorRelayRate, doorRelayBurst = 200, 50
)

// door is where handshake messages come in: it turns away what is not meant for this node before any public-key work,
// and under load, initiations whose source has not shown a cookie (WireGuard paper §5.3). Safe for concurrent use.
type door struct {
	static   *noise.Static
	reply    func(to *datagram.Source, pkt []byte)
	counters *counters
	queue    chan knock // to the owner

	mu      sync.Mutex
	checker *noise.Checker  // guarded by mu
	limits  bucket.Prefixes // guarded by mu
	relayed bucket.Bucket   // guarded by mu
	loaded  time.Time       // under load until then; guarded by mu
}

// knock is one handshake message.
type knock struct {
	msg  [noise.InitiationSize]byte
	size int
	from datagram.Source
}

func (k *knock) bytes() []byte { return k.msg[:k.size] }

func newDoor(static *noise.Static, reply func(*datagram.Source, []byte), c *counters) *door {
	return &door{
		static: static, reply: reply, counters: c, queue: make(chan knock, doorQueue),
		checker: noise.NewChecker(static), limits: bucket.Prefixes{Rate: doorRate, Burst: doorBurst},
	}
}

// knock takes a handshake message. borrowed: msg is copied.
func (d *door) knock(now time.Time, msg []byte, from *datagram.Source) {
	kind := noise.TypeOf(msg)
	switch kind {
	case noise.TypeInitiation, noise.TypeResponse:
		if !d.static.CheckMAC1(msg) {
			d.counters.add(doorMAC)
			return
		}
	case noise.TypeCookieReply:
	default:
		d.counters.add(inMalformed)
		return
	}
	if kind == noise.TypeInitiation && !d.admit(now, msg, from) {
		return
	}
	k := knock{size: len(msg), from: *from}
	copy(k.msg[:], msg)
	select {
	case d.queue <- k:
	default:
		d.counters.add(doorFull)
	}
}

// admit decides about an initiation; under load it may answer with a cookie.
func (d *door) admit(now time.Time, msg []byte, from *datagram.Source) bool {
	ok, cookie := d.judge(now, msg, from)
	if cookie != nil {
		d.reply(from, cookie[:]) // a datagram of 64 bytes: the send buffer takes it or not
		d.counters.add(doorCookie)
	}
	return ok
}

// judge is admit without the answer, which is sent without the lock.
func (d *door) judge(now time.Time, msg []byte, from *datagram.Source) (ok bool, cookie *[noise.CookieReplySize]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) >= doorBusy {
		d.loaded = now.Add(loadedFor)
	}
	if !now.Before(d.loaded) {
		return true, nil
	}
	if from.Relay != nil {
		if d.relayed.Take(now, doorRelayRate, doorRelayBurst) {
			return true, nil
		}
		d.counters.add(doorLimited)
		return false, nil
	}
	source := cookieSource(from)
	if d.checker.CheckMAC2(now, msg, source[:]) {
		if d.limits.Take(now, from.Addr.Addr()) {
			return true, nil
		}
		d.counters.add(doorLimited)
		return false, nil
	}
	cookie = new([noise.CookieReplySize]byte)
	if err := d.checker.Reply(now, msg, source[:], cookie); err != nil {
		return false, nil
	}
	return false, cookie
}

// cookieSource is what a cookie proves: address and port.
func cookieSource(from *datagram.Source) (source [18]byte) {
	ip := from.Addr.Addr().As16()
	copy(source[:], ip[:])
	binary.BigEndian.PutUint16(source[16:], from.Addr.Port())
	return source
}
