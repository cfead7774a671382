package main

import (
	"net/netip"
	"testing"
	"time"
)

func TestRouteLookup(t *testing.T) {
	var addrs []netip.Addr
	for i := range 3000 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{100, 88, byte(i >> 8), byte(i)}))
	}
	if ns, err := routeLookup(addrs, netip.Addr.Is4, time.Millisecond); err != nil || ns <= 0 {
		t.Errorf("%v ns, %v", ns, err)
	}
	if _, err := routeLookup(addrs, netip.Addr.Is6, time.Millisecond); err == nil {
		t.Error("nothing was asked for, and no error")
	}
}

func TestSessionLookup(t *testing.T) {
	if ns, err := sessionLookup(100, time.Millisecond); err != nil || ns <= 0 {
		t.Errorf("%v ns, %v", ns, err)
	}
}
