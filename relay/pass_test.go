package relay

import (
	"errors"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// TestPass judges passes one by one; passes over the wire are a case of relaytest.
func TestPass(t *testing.T) {
	seed := identity.Secret(filled(1))
	key, node, other := identity.FromSeed(seed).ID(), seeded(2).ID(), seeded(3).ID()
	now := time.Unix(1_800_000_000, 0)
	own := NewPass(seed, node, now.Add(time.Hour))
	bearer := NewPass(seed, identity.PeerID{}, now.Add(time.Hour))
	for _, c := range []struct {
		name    string
		pass    []byte
		allowed []identity.PeerID
		node    identity.PeerID
		now     time.Time
		want    error
	}{
		{"own", own, []identity.PeerID{key}, node, now, nil},
		{"among several keys", own, []identity.PeerID{other, key}, node, now, nil},
		{"bearer", bearer, []identity.PeerID{key}, other, now, nil},
		{"last moment", own, []identity.PeerID{key}, node, now.Add(time.Hour - 1), nil},
		{"expired", own, []identity.PeerID{key}, node, now.Add(time.Hour), ErrPassExpired},
		{"no key", own, nil, node, now, ErrPassKey},
		{"another key", own, []identity.PeerID{other}, node, now, ErrPassKey},
		{"another node", own, []identity.PeerID{key}, other, now, ErrPassSubject},
	} {
		pass, err := ParsePass(c.pass)
		if err != nil {
			t.Fatal(err)
		}
		if err := pass.Verify(c.allowed, c.node, c.now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for i := range PassLen { // every bit counts
		spoiled := append([]byte(nil), own...)
		spoiled[i] ^= 1
		pass, err := ParsePass(spoiled)
		if err == nil {
			err = pass.Verify([]identity.PeerID{key}, node, now)
		}
		if err == nil {
			t.Errorf("a pass with byte %d changed is good", i)
		}
	}
	for _, bad := range [][]byte{nil, own[:PassLen-1], append(append([]byte(nil), own...), 0)} {
		if _, err := ParsePass(bad); !errors.Is(err, ErrPassFormat) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if pass, _ := ParsePass(own); pass.RelayKey != key || pass.Subject != node || !pass.Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v", pass)
	}
}
