package join

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// cookieLife is how long a secret makes cookies; it checks them as long again.
const cookieLife = 120 * time.Second

// cookieJar makes cookies without remembering them. Owned by the Answerer.
type cookieJar struct {
	secret, last identity.Secret
	since        time.Time
}

func (j *cookieJar) turn(now time.Time) {
	switch age := now.Sub(j.since); {
	case j.since.IsZero() || age < 0 || age > 2*cookieLife:
		j.last, j.secret, j.since = identity.NewSecret(), identity.NewSecret(), now
	case age > cookieLife:
		j.last, j.secret, j.since = j.secret, identity.NewSecret(), now
	}
}

// make is the cookie of an ephemeral key seen from an address.
func (j *cookieJar) make(now time.Time, from netip.AddrPort, e [32]byte) cookie {
	j.turn(now)
	return bake(j.secret, from, e)
}

// check reports whether c was made for that address and key within the last four minutes at most.
func (j *cookieJar) check(now time.Time, from netip.AddrPort, e [32]byte, c cookie) bool {
	j.turn(now)
	a, b := bake(j.secret, from, e), bake(j.last, from, e)
	return hmac.Equal(a[:], c[:]) || hmac.Equal(b[:], c[:])
}

func bake(secret identity.Secret, from netip.AddrPort, e [32]byte) cookie {
	mac := hmac.New(sha256.New, secret[:])
	ip := from.Addr().As16()
	mac.Write(ip[:])
	mac.Write([]byte{byte(from.Port() >> 8), byte(from.Port())})
	mac.Write(e[:])
	return cookie(mac.Sum(nil)[:len(cookie{})])
}

// cookiePacket is the answer to an Intro without a good cookie.
func cookiePacket(e [32]byte, c cookie) []byte {
	pkt := append(make([]byte, 0, CookieSize), TypeCookie, Version)
	pkt = append(pkt, e[:14]...)
	return append(pkt, c[:]...)
}

func parseCookie(pkt []byte) (e [14]byte, c cookie, err error) {
	if len(pkt) != CookieSize || pkt[0] != TypeCookie {
		return e, c, ErrMalformed
	}
	if pkt[1] != Version {
		return e, c, ErrVersion
	}
	return [14]byte(pkt[2:16]), cookie(pkt[16:]), nil
}
