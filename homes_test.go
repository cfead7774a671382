package meshnet

import (
	"slices"
	"testing"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

func TestChooseHomes(t *testing.T) {
	a, b, c := identity.PeerID{1}, identity.PeerID{2}, identity.PeerID{3}
	relay := func(url string) netmap.Home { return netmap.Home{Relay: url} }
	member := func(id identity.PeerID) netmap.Home { return netmap.Home{Member: id} }
	for _, tt := range []struct {
		name string
		f    homeFacts
		want []netmap.Home
	}{
		{"nobody", homeFacts{nat: netmap.NATHard}, nil},
		{"relays first", homeFacts{nat: netmap.NATEasy, relays: []string{"r1"}, members: []identity.PeerID{a, b}}, []netmap.Home{relay("r1"), member(a)}},
		{"two relays", homeFacts{nat: netmap.NATEasy, relays: []string{"r1", "r2"}, members: []identity.PeerID{a}}, []netmap.Home{relay("r1"), relay("r2")}},
		{"no NAT, no member", homeFacts{nat: netmap.NATNone, members: []identity.PeerID{a}}, nil},
		{"no NAT, a relay", homeFacts{nat: netmap.NATNone, relays: []string{"r1"}}, []netmap.Home{relay("r1")}},
		{"a home stays", homeFacts{nat: netmap.NATHard, members: []identity.PeerID{a, b, c}, before: []netmap.Home{member(c), member(b)}}, []netmap.Home{member(c), member(b)}},
		{"a home that is gone does not", homeFacts{nat: netmap.NATHard, members: []identity.PeerID{a, b}, before: []netmap.Home{member(c), member(b)}}, []netmap.Home{member(b), member(a)}},
	} {
		if got := chooseHomes(tt.f); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := memberHomes([]netmap.Home{relay("r1"), member(b)}); !slices.Equal(got, []identity.PeerID{b}) {
		t.Errorf("member homes: %v", got)
	}
}
