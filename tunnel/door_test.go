package tunnel

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// forger makes handshake messages of nobody with a valid MAC1 (WireGuard paper §5.4.4): whoever knows the node's public
// key can.
type forger struct {
	key [32]byte
	msg [noise.InitiationSize]byte
}

func newForger(of identity.WGKey) *forger {
	f := &forger{key: blake2s.Sum256(append([]byte("mac1----"), of[:]...))}
	_, _ = rand.Read(f.msg[:])
	return f
}

// next is another message of a type, valid until the next call.
func (f *forger) next(kind byte) []byte {
	size := map[byte]int{noise.TypeInitiation: noise.InitiationSize, noise.TypeResponse: noise.ResponseSize}[kind]
	msg := f.msg[:size]
	binary.LittleEndian.PutUint32(msg, uint32(kind))
	binary.LittleEndian.PutUint64(msg[20:], binary.LittleEndian.Uint64(msg[20:])+1)
	h, err := blake2s.New128(f.key[:])
	if err != nil {
		panic(err)
	}
	_, _ = h.Write(msg[:size-32])
	h.Sum(msg[:size-32])
	return msg
}

// fake is the nth of many sources that do not exist.
func fake(n int) datagram.Source {
	return datagram.Source{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 + byte(n>>16)&1, byte(n >> 8), byte(n)}), 1234)}
}

// doorTest is a door whose answers go to the test.
func newDoorTest(t *testing.T) (d *door, c *counters, f *forger, answers *int) {
	t.Helper()
	static, err := noise.NewStatic(seeded(1).WGPrivate())
	if err != nil {
		t.Fatal(err)
	}
	c, answers = new(counters), new(int)
	d = newDoor(static, func(*datagram.Source, []byte) { *answers++ }, c)
	return d, c, newForger(static.Public()), answers
}

func TestDoorMAC1(t *testing.T) {
	d, c, f, answers := newDoorTest(t)
	from := fake(1)
	for _, kind := range []byte{noise.TypeInitiation, noise.TypeResponse} {
		msg := f.next(kind)
		d.knock(sideEpoch, msg, &from)
		if k := <-d.queue; string(k.bytes()) != string(msg) || k.from != from {
			t.Error("another message comes in")
		}
		msg[len(msg)-40]++ // under the mac
		d.knock(sideEpoch, msg, &from)
		msg[len(msg)-40]--
		msg[len(msg)-32]++ // the mac
		d.knock(sideEpoch, msg, &from)
		msg[len(msg)-32]--
		d.knock(sideEpoch, msg[:len(msg)-1], &from)
	}
	other := newForger(seeded(2).WG())
	d.knock(sideEpoch, other.next(noise.TypeInitiation), &from)
	if len(d.queue) != 0 || *answers != 0 {
		t.Error("what is not for this node comes in, or is answered")
	}
	only(t, c, map[reason]uint64{doorMAC: 5, inMalformed: 2})
}

// TestDoorUnderLoad: when many wait, initiations need a cookie for a second; everything else comes in.
func TestDoorUnderLoad(t *testing.T) {
	d, c, f, answers := newDoorTest(t)
	now := sideEpoch
	for i := range doorBusy + 10 {
		from := fake(i)
		d.knock(now, f.next(noise.TypeInitiation), &from)
	}
	if len(d.queue) != doorBusy || *answers != 10 {
		t.Errorf("%d wait, %d were answered", len(d.queue), *answers)
	}
	from := fake(1)
	d.knock(now, f.next(noise.TypeResponse), &from)
	if len(d.queue) != doorBusy+1 {
		t.Error("a response does not come in under load")
	}
	for len(d.queue) > 0 {
		<-d.queue
	}
	d.knock(now.Add(loadedFor-1), f.next(noise.TypeInitiation), &from)
	if len(d.queue) != 0 {
		t.Error("the load is forgotten at once")
	}
	d.knock(now.Add(loadedFor), f.next(noise.TypeInitiation), &from)
	if len(d.queue) != 1 {
		t.Error("the load does not end")
	}
	only(t, c, map[reason]uint64{doorCookie: 11})
}

func TestDoorFull(t *testing.T) {
	d, c, f, _ := newDoorTest(t)
	from := fake(1)
	for range doorQueue + 10 {
		d.knock(sideEpoch, f.next(noise.TypeResponse), &from)
	}
	only(t, c, map[reason]uint64{doorFull: 10})
}

// TestDoorCookie: whoever shows the cookie that was sent to his address comes in, up to his share.
func TestDoorCookie(t *testing.T) {
	d, c, f, _ := newDoorTest(t)
	from, elsewhere := fake(1), fake(2)
	samePort := from
	samePort.Addr = netip.AddrPortFrom(from.Addr.Addr(), 99)
	var reply []byte
	d.reply = func(_ *datagram.Source, pkt []byte) { reply = pkt }
	d.loaded = sideEpoch.Add(time.Hour)
	static, err := noise.NewStatic(seeded(2).WGPrivate())
	if err != nil {
		t.Fatal(err)
	}
	remote, err := static.Remote(d.static.Public())
	if err != nil {
		t.Fatal(err)
	}
	var msg [noise.InitiationSize]byte
	begun, err := static.Initiate(remote, 7, [12]byte{1}, nil, &msg)
	if err != nil {
		t.Fatal(err)
	}
	d.knock(sideEpoch, msg[:], &from)
	if len(reply) != noise.CookieReplySize || len(d.queue) != 0 {
		t.Fatal("no cookie")
	}
	cookie, err := remote.OpenCookie(reply, begun.MAC1())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := static.Initiate(remote, 8, [12]byte{2}, &cookie, &msg); err != nil {
		t.Fatal(err)
	}
	d.knock(sideEpoch, msg[:], &elsewhere)
	d.knock(sideEpoch, msg[:], &samePort)
	if len(d.queue) != 0 {
		t.Error("another source comes in with the cookie")
	}
	for range doorBurst + 5 {
		d.knock(sideEpoch, msg[:], &from)
	}
	if len(d.queue) != doorBurst {
		t.Errorf("%d came in with a cookie", len(d.queue))
	}
	d.knock(sideEpoch, f.next(noise.TypeInitiation), &from)
	d.knock(sideEpoch.Add(noise.CookieLifetime), msg[:], &from)
	if len(d.queue) != doorBurst {
		t.Error("without a cookie, or with an old one, somebody comes in")
	}
	only(t, c, map[reason]uint64{doorCookie: 5, doorLimited: 5})
}

// TestCookieFlow floods a node with initiations of nobody; a member that talks to it for the first time gets through,
// with a cookie.
func TestCookieFlow(t *testing.T) {
	sky := newAir()
	a, b := newNode(t, sky, 1, nil), newNode(t, sky, 2, nil)
	know(a, b)
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	flood.Go(func() {
		f := newForger(b.id.WG())
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; <-tick.C {
			for range 100 {
				n++
				b.sock.put(0, airPacket{fake(n).Addr, append([]byte(nil), f.next(noise.TypeInitiation)...)})
			}
		}
	})
	eventually(t, "b is under load", func() bool { return b.Counters()["door_cookie"] > 100 })
	start := time.Now()
	ping(t, a, b, 8)
	t.Logf("first packet there and back under the flood after %v", time.Since(start))
	used := make(chan uint64, 1)
	a.do(func(o *owner) { used <- o.machine.Counters().CookiesUsed })
	if <-used == 0 || sky.count(noise.TypeCookieReply) == 0 {
		t.Error("no cookie was used")
	}
	ping(t, b, a, 1000)
}

// TestDoorRelayed: a relay server vouches for who sends, so that no cookie is asked for; under load their share is
// bounded, and leaves the others' alone.
func TestDoorRelayed(t *testing.T) {
	d, c, f, answers := newDoorTest(t)
	d.loaded = sideEpoch.Add(time.Hour)
	from := datagram.Source{Relay: new(recorder)}
	for range doorRelayBurst + 10 {
		d.knock(sideEpoch, f.next(noise.TypeInitiation), &from)
	}
	if len(d.queue) != doorRelayBurst || *answers != 0 {
		t.Errorf("%d wait, %d were answered", len(d.queue), *answers)
	}
	direct := fake(1)
	d.knock(sideEpoch, f.next(noise.TypeInitiation), &direct)
	only(t, c, map[reason]uint64{doorLimited: 10, doorCookie: 1})
}
