package noise

import (
	"bytes"
	"testing"

	"github.com/meshnet/meshnet/identity"
)

// The fuzzers start from the vectors. A first byte of input with the low bit set has the macs made right before the
// message is read, so that what lies behind them is reached. What opens has to open for the reference too.

func remade(msg []byte, macs bool, to *Remote) []byte {
	msg = bytes.Clone(msg)
	if macs && hasMACs(msg) {
		to.putMACs(msg, nil)
	}
	return msg
}

func FuzzOpen(f *testing.F) {
	all := vectors(f)
	v := all[0]
	si, sr := statics(f, v)
	toR, fromI := remote(f, si, sr.Public()), remote(f, sr, si.Public())
	for _, v := range all {
		f.Add([]byte(v.Initiation), false)
		f.Add([]byte(v.Initiation), true)
		f.Add([]byte(v.Response), true)
	}
	key := private(f, v.ResponderStatic)
	known := func(key identity.WGKey) *Remote {
		if key == fromI.Key() {
			return fromI
		}
		return nil
	}
	f.Fuzz(func(t *testing.T, msg []byte, macs bool) {
		msg = remade(msg, macs, toR)
		in, err := sr.Open(msg, known)
		if (in == nil) == (err == nil) {
			t.Fatalf("%v, %v", in, err)
		}
		n, timestamp, naiveErr := naiveOpen(key, msg)
		if err == nil {
			if naiveErr != nil {
				t.Fatalf("opened, but not by the reference: %v", naiveErr)
			}
			same(t, "timestamp", in.Timestamp[:], timestamp)
			same(t, "initiator's key", in.Remote[:], n.rs)
		}
		if err != nil && naiveErr == nil && macs && bytes.Equal(n.rs, v.InitiatorPublic) {
			t.Errorf("the reference opens it, not we: %v", err)
		}
	})
}

func FuzzFinish(f *testing.F) {
	v := vectors(f)[1]
	si, sr := statics(f, v)
	toR, toI := remote(f, si, sr.Public()), remote(f, sr, si.Public())
	i := &Initiation{local: si, index: v.InitiatorIndex, ephemeral: clamped(v.InitiatorEphemeral)}
	var msg [InitiationSize]byte
	if err := i.begin(toR, [12]byte(v.Timestamp), nil, &msg); err != nil {
		f.Fatal(err)
	}
	psks := []identity.Secret{{}, identity.Secret(v.PSK)}
	f.Add([]byte(v.Response), false)
	f.Add([]byte(v.Response), true)
	f.Add([]byte(v.Initiation), true)
	f.Fuzz(func(t *testing.T, response []byte, macs bool) {
		before := *i
		response = remade(response, macs, toI)
		keys, at, err := i.Finish(response, psks)
		if err != nil {
			if *i != before {
				t.Error("a refused response left a trace")
			}
			return
		}
		*i = before
		// But for the sender's index and mac2 there is one response that is right.
		same(t, "response", response[responseReceiverAt:responseMACsAt], v.Response[responseReceiverAt:responseMACsAt])
		same(t, "key", keys.Send[:], v.InitiatorSends)
		if at != 1 {
			t.Errorf("psk %d", at)
		}
	})
}

func FuzzOpenCookie(f *testing.F) {
	v := vectors(f)[0]
	si, sr := statics(f, v)
	toR := remote(f, si, sr.Public())
	mac1 := MAC1(v.Initiation)
	f.Add([]byte(v.CookieReply))
	f.Fuzz(func(t *testing.T, reply []byte) {
		cookie, err := toR.OpenCookie(reply, mac1)
		if err != nil {
			if cookie != (Cookie{}) {
				t.Error("a cookie with an error")
			}
			return
		}
		same(t, "cookie", cookie[:], v.Cookie)
		same(t, "reply", reply[cookieNonceAt:], v.CookieReply[cookieNonceAt:])
	})
}

func FuzzMACs(f *testing.F) {
	v := vectors(f)[2]
	_, sr := statics(f, v)
	checker := NewChecker(sr)
	checker.secret, checker.drawn = [hashSize]byte(v.CookieSecret), noon
	f.Add([]byte(v.Initiation), []byte(v.CookieSource))
	f.Add([]byte(v.Response), []byte(nil))
	f.Add(naiveFrame(1, []uint32{9}, make([]byte, 108), v.ResponderPublic, v.Cookie), []byte(v.CookieSource))
	f.Fuzz(func(t *testing.T, msg, source []byte) {
		mac1, mac2 := false, false
		if hasMACs(msg) {
			at1, at2 := len(msg)-32, len(msg)-16
			mac1 = bytes.Equal(msg[at1:at2], naiveMAC(naiveHash([]byte("mac1----"), v.ResponderPublic), msg[:at1]))
			mac2 = bytes.Equal(msg[at2:], naiveMAC(naiveMAC(v.CookieSecret, source), msg[:at2]))
		}
		if got := sr.CheckMAC1(msg); got != mac1 {
			t.Errorf("mac1: got %v, want %v", got, mac1)
		}
		if got := checker.CheckMAC2(noon, msg, source); got != mac2 {
			t.Errorf("mac2: got %v, want %v", got, mac2)
		}
		var reply [CookieReplySize]byte
		if err := checker.Reply(noon, msg, source, &reply); (err == nil) != mac1 {
			t.Errorf("reply: %v", err)
		}
	})
}
