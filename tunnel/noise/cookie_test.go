package noise

import (
	"errors"
	"slices"
	"testing"
	"time"
)

var (
	noon   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	source = []byte("192.0.2.1:51820")
)

// given is a couple whose a holds a cookie of b, drawn at noon.
func given(t testing.TB) (c *couple, checker *Checker, cookie Cookie) {
	t.Helper()
	c = newCouple(t)
	checker = NewChecker(c.b)
	i := c.initiate(t)
	var reply [CookieReplySize]byte
	if err := checker.Reply(noon, c.first[:], source, &reply); err != nil {
		t.Fatal(err)
	}
	if to, ok := ReceiverIndex(reply[:]); !ok || to != i.Index() {
		t.Errorf("the reply is for index %x, %v", to, ok)
	}
	cookie, err := c.atA.OpenCookie(reply[:], i.MAC1())
	if err != nil {
		t.Fatal(err)
	}
	return c, checker, cookie
}

func TestCookie(t *testing.T) {
	c, checker, cookie := given(t)
	if checker.CheckMAC2(noon, c.first[:], source) {
		t.Error("an initiation without a cookie passed")
	}
	if _, err := c.a.Initiate(c.atA, 1, c.stamp, &cookie, &c.first); err != nil {
		t.Fatal(err)
	}
	if _, err := c.b.Open(c.first[:], c.known); err != nil {
		t.Errorf("an initiation with a cookie is not opened: %v", err)
	}
	for _, tt := range []struct {
		name   string
		now    time.Time
		source string
		want   bool
	}{
		{"at once", noon, "192.0.2.1:51820", true},
		{"at the end of its life", noon.Add(CookieLifetime - 1), "192.0.2.1:51820", true},
		{"after its life", noon.Add(CookieLifetime), "192.0.2.1:51820", false},
		{"clock set back", noon.Add(-1), "192.0.2.1:51820", false},
		{"another port", noon, "192.0.2.1:51821", false},
		{"another address", noon, "192.0.2.2:51820", false},
		{"no address", noon, "", false},
	} {
		if got := checker.CheckMAC2(tt.now, c.first[:], []byte(tt.source)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	flip(c.first[:], c.atA, false, func(at int, changed []byte) {
		if checker.CheckMAC2(noon, changed, source) {
			t.Errorf("byte %d is not covered by mac2", at)
		}
	})
	for _, msg := range [][]byte{nil, c.first[:147], c.first[:16], message(3, 64), message(4, 148)} {
		if checker.CheckMAC2(noon, msg, source) {
			t.Errorf("%d bytes of type %d pass", len(msg), TypeOf(msg))
		}
	}
	if NewChecker(c.b).CheckMAC2(noon, c.first[:], source) {
		t.Error("a cookie of another secret passes")
	}
	checker.Wipe()
	if !zero(checker.secret) || checker.CheckMAC2(noon, c.first[:], source) {
		t.Error("a cookie outlives its wiped secret")
	}
}

// A responder's message can need a cookie too: that of the initiator.
func TestCookieOfResponse(t *testing.T) {
	c := newCouple(t)
	checker := NewChecker(c.a)
	c.initiate(t)
	c.respond(t)
	var reply [CookieReplySize]byte
	if err := checker.Reply(noon, c.second[:], source, &reply); err != nil {
		t.Fatal(err)
	}
	cookie, err := c.atB.OpenCookie(reply[:], MAC1(c.second[:]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.open(t).Respond(3, c.psk, &cookie, &c.second); err != nil {
		t.Fatal(err)
	}
	if !checker.CheckMAC2(noon, c.second[:], source) {
		t.Error("refused")
	}
}

// The secret stays for two minutes; with the next one all cookies of it are dead.
func TestSecretChanges(t *testing.T) {
	c, checker, _ := given(t)
	var reply [CookieReplySize]byte
	at := func(now time.Time) [hashSize]byte {
		t.Helper()
		if err := checker.Reply(now, c.first[:], source, &reply); err != nil {
			t.Fatal(err)
		}
		return checker.secret
	}
	first := checker.secret
	if at(noon.Add(CookieLifetime-1)) != first {
		t.Error("changed early")
	}
	cookie, err := c.atA.OpenCookie(reply[:], MAC1(c.first[:]))
	if err != nil {
		t.Fatal(err)
	}
	if at(noon.Add(CookieLifetime)) == first {
		t.Error("not changed")
	}
	if _, err := c.a.Initiate(c.atA, 1, c.stamp, &cookie, &c.first); err != nil {
		t.Fatal(err)
	}
	if checker.CheckMAC2(noon.Add(CookieLifetime), c.first[:], source) {
		t.Error("a cookie of the secret before passes")
	}
	second := checker.secret
	if at(noon) == second {
		t.Error("not changed when the clock was set back")
	}
}

func TestReplyErrors(t *testing.T) {
	c := newCouple(t)
	checker := NewChecker(c.b)
	c.initiate(t)
	var reply [CookieReplySize]byte
	for _, msg := range [][]byte{nil, c.first[:147], message(3, 64), message(4, 148)} {
		if err := checker.Reply(noon, msg, source, &reply); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of type %d: %v", len(msg), TypeOf(msg), err)
		}
	}
	c.first[60] ^= 1
	if err := checker.Reply(noon, c.first[:], source, &reply); !errors.Is(err, ErrMAC) {
		t.Errorf("wrong mac1: %v", err)
	}
	if reply != [CookieReplySize]byte{} || !checker.drawn.IsZero() {
		t.Error("refused, but something was made")
	}
}

func TestOpenCookieErrors(t *testing.T) {
	c := newCouple(t)
	checker := NewChecker(c.b)
	i := c.initiate(t)
	var reply [CookieReplySize]byte
	if err := checker.Reply(noon, c.first[:], source, &reply); err != nil {
		t.Fatal(err)
	}
	for n := range reply {
		changed := slices.Clone(reply[:])
		changed[n] ^= 1
		cookie, err := c.atA.OpenCookie(changed, i.MAC1())
		if free := n >= receiverAt && n < cookieNonceAt; (err == nil) != free { // the index is looked up, not sealed
			t.Errorf("byte %d: %v", n, err)
		} else if err != nil && cookie != (Cookie{}) {
			t.Errorf("byte %d: a cookie with an error", n)
		}
	}
	for n := range 100 {
		if n == CookieReplySize {
			continue
		}
		msg := make([]byte, n)
		copy(msg, reply[:])
		if _, err := c.atA.OpenCookie(msg, i.MAC1()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := c.atA.OpenCookie(reply[:], c.initiate(t).MAC1()); !errors.Is(err, ErrAuth) {
		t.Errorf("to another message: %v", err)
	}
	if _, err := c.atB.OpenCookie(reply[:], i.MAC1()); !errors.Is(err, ErrAuth) {
		t.Errorf("from another peer: %v", err)
	}
}

// Two replies to the same message never share a nonce.
func TestReplyNonce(t *testing.T) {
	c := newCouple(t)
	checker := NewChecker(c.b)
	c.initiate(t)
	nonces := make(map[[24]byte]bool)
	for range 16 {
		var reply [CookieReplySize]byte
		if err := checker.Reply(noon, c.first[:], source, &reply); err != nil {
			t.Fatal(err)
		}
		nonces[[24]byte(reply[cookieNonceAt:])] = true
	}
	if len(nonces) != 16 {
		t.Errorf("%d nonces in 16 replies", len(nonces))
	}
}
