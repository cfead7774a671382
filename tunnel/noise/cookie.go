package noise

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// CookieLifetime is how long the secret of a Checker lasts, and how long a cookie is used after it came.
const CookieLifetime = 120 * time.Second

// Cookie is what a responder under load gives to those who can be reached at the address they claim.
type Cookie [16]byte

// OpenCookie reads a cookie reply from r (whitepaper §5.4.7) to the message with the first mac mac1, the last one
// that was sent to r. Which message a reply is to, ReceiverIndex tells. The cookie is good for CookieLifetime. The
// errors are ErrMalformed and ErrAuth.
func (r *Remote) OpenCookie(reply []byte, mac1 [16]byte) (Cookie, error) {
	if TypeOf(reply) != TypeCookieReply {
		return Cookie{}, ErrMalformed
	}
	aead, err := chacha20poly1305.NewX(r.cookieKey[:])
	if err != nil {
		panic("noise: aead: " + err.Error()) // only a wrong length of key fails
	}
	var c Cookie
	if _, err := aead.Open(c[:0], reply[cookieNonceAt:cookieBoxAt], reply[cookieBoxAt:], mac1[:]); err != nil {
		return Cookie{}, ErrAuth
	}
	return c, nil
}

// Checker is the other side of cookies: a responder's, under load (whitepaper §5.3). The secret they are made of,
// R_m in the paper, is drawn when one is given and none or an old one is there. There is one at a time: with it the
// cookies made of it die, even young ones; their owners are given new ones when they try again. Owned by a loop.
type Checker struct {
	unprintable
	static    *Static
	cookieKey [hashSize]byte
	secret    [hashSize]byte
	drawn     time.Time
}

// NewChecker makes a Checker for messages to s.
func NewChecker(s *Static) *Checker {
	return &Checker{static: s, cookieKey: hashOf(labelCookie, &s.public)}
}

// CheckMAC2 reports whether msg is an initiation or a response made with the cookie of its source: address and port
// in some spelling that is always the same.
func (c *Checker) CheckMAC2(now time.Time, msg, source []byte) bool {
	if !hasMACs(msg) || !c.current(now) {
		return false
	}
	cookie := c.cookie(source)
	at := len(msg) - macSize
	var want [macSize]byte
	mac(&want, cookie[:], msg[:at])
	return subtle.ConstantTimeCompare(want[:], msg[at:]) == 1
}

// Reply writes the cookie reply to an initiation or a response from source. ErrMalformed and ErrMAC are for messages
// that deserve none.
func (c *Checker) Reply(now time.Time, msg, source []byte, out *[CookieReplySize]byte) error {
	if !hasMACs(msg) {
		return ErrMalformed
	}
	if !c.static.CheckMAC1(msg) {
		return ErrMAC
	}
	if !c.current(now) {
		rand.Read(c.secret[:])
		c.drawn = now
	}
	rand.Read(out[cookieNonceAt:cookieBoxAt])
	c.reply(msg, source, out)
	return nil
}

// reply is Reply with the nonce drawn.
func (c *Checker) reply(msg, source []byte, out *[CookieReplySize]byte) {
	putHead(out[:], TypeCookieReply, binary.LittleEndian.Uint32(msg[senderAt:]))
	aead, err := chacha20poly1305.NewX(c.cookieKey[:])
	if err != nil {
		panic("noise: aead: " + err.Error()) // only a wrong length of key fails
	}
	cookie := c.cookie(source)
	mac1 := MAC1(msg)
	aead.Seal(out[cookieBoxAt:cookieBoxAt], out[cookieNonceAt:cookieBoxAt], cookie[:], mac1[:])
}

// Wipe forgets the secret and with it all cookies given.
func (c *Checker) Wipe() {
	wipe(c.secret[:])
	c.drawn = time.Time{}
}

// current reports whether there is a secret that is not too old. A clock that was set back ends it too.
func (c *Checker) current(now time.Time) bool {
	if c.drawn.IsZero() {
		return false
	}
	age := now.Sub(c.drawn)
	return age >= 0 && age < CookieLifetime
}

func (c *Checker) cookie(source []byte) (cookie Cookie) {
	mac((*[macSize]byte)(&cookie), c.secret[:], source)
	return cookie
}
