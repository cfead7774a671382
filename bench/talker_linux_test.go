package main

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// Two talkers agree on a session, and a packet passes; the same datagram does not pass twice.
func TestTalker(t *testing.T) {
	now, psk := time.Now(), identity.NewSecret()
	a, b := identity.New(), identity.New()
	left, err := newTalker(a.WGPrivate(), b.WG(), psk, now)
	if err != nil {
		t.Fatal(err)
	}
	right, err := newTalker(b.WGPrivate(), a.WG(), psk, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := left.seal(now, nil); err == nil {
		t.Error("sealed without a session")
	}
	finished := false
	for _, act := range left.machine.Renew(now, left.peer) {
		if act.Kind != wg.ActInitiate {
			continue
		}
		answers, done := right.handshake(now, act.Message)
		if done {
			t.Error("an answered handshake counts as an own one")
		}
		for _, answer := range answers {
			if answer.Kind == wg.ActReply {
				_, finished = left.handshake(now, answer.Message)
			}
		}
	}
	if !finished {
		t.Fatal("no handshake")
	}
	from, to := netip.MustParseAddr("100.88.1.2"), netip.MustParseAddr("100.88.3.4")
	packet := echoPacket(from, to, 7, 9)
	d, err := left.seal(now, packet)
	if err != nil {
		t.Fatal(err)
	}
	again := bytes.Clone(d)
	if got := right.open(now, d); !bytes.HasPrefix(got, packet) {
		t.Errorf("got % x, want % x", got, packet)
	}
	if right.open(now, again) != nil {
		t.Error("a replayed datagram passes")
	}
	for _, bad := range [][]byte{nil, make([]byte, 16), make([]byte, 64)} {
		if right.open(now, bad) != nil {
			t.Errorf("% x passes", bad)
		}
	}
	if actions, _ := right.handshake(now, make([]byte, 148)); len(actions) > 0 {
		t.Error("a forged initiation is answered")
	}
}

// The echo has checksums that hold, and what comes back for it is understood.
func TestEchoPacket(t *testing.T) {
	p := echoPacket(netip.MustParseAddr("100.88.1.2"), netip.MustParseAddr("100.88.3.4"), 7, 9)
	if naive(p[:20]) != 0 || naive(p[20:]) != 0 || p[9] != unix.IPPROTO_ICMP {
		t.Errorf("checksums of % x", p)
	}
	p[20] = echoReply
	if seq, ok := parseReply(p, 7); !ok || seq != 9 {
		t.Errorf("%d, %v", seq, ok)
	}
}
