package guess

import (
	"errors"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	// MaxAttempts run at a time.
	MaxAttempts = 2
	// Every is the least time between two attempts with one member, and between two at one address. It doubles with
	// each attempt that fails, to MaxEvery.
	Every    = time.Minute
	MaxEvery = 32 * time.Minute
)

// Errors of Begin.
var (
	ErrTarget = errors.New("port prediction: not an address to guess at")
	ErrBusy   = errors.New("port prediction: two attempts are under way")
	ErrSoon   = errors.New("port prediction: too soon after the last attempt")
)

// Limits decides which attempts a node makes. The zero Limits has made none. Owned by whoever calls it.
type Limits struct {
	peers   map[identity.PeerID]*record
	targets map[netip.Addr]time.Time // when the last attempt at it began
}

// record is what is remembered of a member.
type record struct {
	running bool
	fails   int
	next    time.Time // no attempt before
}

// Begin asks whether an attempt with a member, at an address that it named, may begin now. Its End must follow. Errors:
// ErrTarget, ErrBusy, ErrSoon.
func (l *Limits) Begin(now time.Time, peer identity.PeerID, target netip.Addr) error {
	if !Guessable(target) {
		return ErrTarget
	}
	l.sweep(now)
	running := 0
	for _, r := range l.peers {
		if r.running {
			running++
		}
	}
	if running >= MaxAttempts {
		return ErrBusy
	}
	r := l.peers[peer]
	if r != nil && now.Before(r.next) {
		return ErrSoon
	}
	if last, ok := l.targets[target]; ok && now.Sub(last) < Every {
		return ErrSoon // by another member: a target does not suffer from how many name it
	}
	if r == nil {
		if l.peers == nil {
			l.peers, l.targets = make(map[identity.PeerID]*record), make(map[netip.Addr]time.Time)
		}
		r = new(record)
		l.peers[peer] = r
	}
	r.running, r.next = true, now.Add(Every)
	l.targets[target] = now
	return nil
}

// End tells how an attempt ended.
func (l *Limits) End(now time.Time, peer identity.PeerID, ok bool) {
	r := l.peers[peer]
	if r == nil || !r.running {
		return
	}
	r.running = false
	if ok {
		r.fails = 0
		return
	}
	wait := min(Every<<min(r.fails, 10), MaxEvery)
	r.fails++
	r.next = now.Add(wait)
}

// Running reports whether an attempt with a member is under way.
func (l *Limits) Running(peer identity.PeerID) bool {
	r := l.peers[peer]
	return r != nil && r.running
}

// sweep forgets what no longer matters, so that no more is remembered than attempts fit in MaxEvery.
func (l *Limits) sweep(now time.Time) {
	for id, r := range l.peers {
		if !r.running && now.Sub(r.next) >= MaxEvery {
			delete(l.peers, id)
		}
	}
	for target, at := range l.targets {
		if now.Sub(at) >= Every {
			delete(l.targets, target)
		}
	}
}

// Guessable reports whether an address may be that of a NAT: IPv4, and a host's.
func Guessable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
