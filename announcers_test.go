package meshnet

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/discovery/mdns"
	"github.com/meshnet/meshnet/identity"
)

func announced(i int) mdns.Announcement {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}), 41820)
	return mdns.Announcement{Instance: fmt.Sprint(i), Interface: "eth0", Addrs: []netip.AddrPort{addr}}
}

func nobody(netip.AddrPort) bool { return false }

// asks runs announcers for a while and returns when they ask.
func asks(a *announcers, begin time.Time, while time.Duration, lacking bool, reached func(netip.AddrPort) bool) (at []time.Duration) {
	for now := begin; now.Sub(begin) < while; {
		ask, next := a.due(now, lacking, reached)
		for range ask {
			at = append(at, now.Sub(begin))
		}
		if next.IsZero() {
			return at
		}
		now = next
	}
	return at
}

func TestAnnouncersWhileLacking(t *testing.T) {
	a, begin := new(announcers), time.Unix(1e9, 0)
	if !a.take(begin, announced(1)) || a.take(begin, announced(1)) {
		t.Fatal("new once, not twice")
	}
	at := asks(a, begin, 3*time.Minute, true, nobody)
	want := []time.Duration{0, 5, 15, 35, 75, 135}
	if len(at) != len(want) {
		t.Fatalf("asked after %v", at)
	}
	for i := range want {
		if at[i] != want[i]*time.Second {
			t.Errorf("asked after %v, want %v s", at, want)
		}
	}
	now := begin.Add(3 * time.Minute)
	a.answer(now, announced(1).Addrs[0])
	if ask, next := a.due(now.Add(answeredFor-1), true, nobody); len(ask) != 0 || next != now.Add(answeredFor) {
		t.Errorf("who answered is asked: %d, next %v", len(ask), next.Sub(now))
	}
	a.hurry()
	if ask, _ := a.due(now, true, nobody); len(ask) != 1 {
		t.Error("not asked anew on another link")
	}
}

func TestAnnouncersWhileSettled(t *testing.T) {
	a, begin := new(announcers), time.Unix(1e9, 0)
	a.take(begin, announced(1))
	at := asks(a, begin, 5*time.Hour, false, nobody)
	if len(at) < 6 || len(at) > 11 || at[0] > patience || at[1]-at[0] != askAgain {
		t.Errorf("asked after %v", at)
	}
	if at := asks(a, begin.Add(6*time.Hour), time.Hour, false, func(netip.AddrPort) bool { return true }); len(at) != 0 {
		t.Errorf("who is reached anyway is asked after %v", at)
	}
	x := announced(1)
	x.Gone = true
	a.take(begin, x)
	if _, next := a.due(begin, true, nobody); !next.IsZero() {
		t.Error("who said goodbye is asked")
	}
}

// Somebody announces a crowd: it is asked a few at a time, and all get their turn.
func TestAnnouncersCrowd(t *testing.T) {
	a, now := new(announcers), time.Unix(1e9, 0)
	const crowd = 100
	for i := range crowd {
		a.take(now, announced(i+1))
	}
	asked := make(map[*announcer]bool)
	for len(asked) < crowd {
		ask, next := a.due(now, true, nobody)
		if len(ask) > maxAnnouncers {
			t.Fatalf("%d at once", len(ask))
		}
		for _, x := range ask {
			asked[x] = true
		}
		if now = next; now.Sub(time.Unix(1e9, 0)) > 10*time.Minute {
			t.Fatalf("%d of %d were asked", len(asked), crowd)
		}
	}
}

func TestLinkTags(t *testing.T) {
	network, keys := identity.NetworkID{7}, []identity.Secret{{2}, {1}}
	now := time.Unix(3600*400_000+1800, 0)
	tags := func(id byte, keys ...identity.Secret) *linkTags {
		return &linkTags{network: network, id: identity.PeerID{0, id}, keys: func() []identity.Secret { return keys }}
	}
	a, b := tags(0, keys...), tags(100, keys[1])
	for _, off := range []time.Duration{0, time.Hour, -time.Hour, 25 * time.Hour, -25 * time.Hour} {
		if !a.known(now, b.own(now.Add(off))) {
			t.Errorf("the tag of an older key is not known with a clock %v off", off)
		}
	}
	if a.known(now, b.own(now.Add(48*time.Hour))) || b.known(now, a.own(now)) {
		t.Error("a tag of another time, or of a key that is not there, is known")
	}
	if other := (&linkTags{network: identity.NetworkID{8}, keys: a.keys}); a.known(now, other.own(now)) {
		t.Error("another network's tag is known")
	}
	change := now.Add(30*time.Minute + 50*time.Second)
	if a.own(change) == a.own(now) || b.own(change) != b.own(now) {
		t.Error("members change over to an hour at once")
	}
	if a.own(now) == tags(0, keys[1]).own(now) {
		t.Error("the newest key does not count")
	}
}
