package hop

import "time"

// ClientState is how far a side's session is.
type ClientState byte

// The states.
//
//	Binding ── bound ──▶ Bound ── Rebind, hint "unbound" ──▶ Bound, asking again
//	   └────── tries used up, hint "gone" ──▶ Lost ◀────────────┘
const (
	Binding ClientState = iota // frames are not carried yet
	Bound
	Lost // there is no such session any more; ask for another
)

const (
	// bindTries hellos go without being answered before the session is lost: about eight seconds.
	bindTries = 10
	// rebindEvery bounds how often hints make a bound side ask again.
	rebindEvery = 250 * time.Millisecond
)

// Client binds one side of one session from a data socket, and again when its address changed. The zero Client is none.
// Owned by whoever calls it.
type Client struct {
	sid   uint32
	nonce Nonce
	state ClientState

	asking bool // hellos are sent until the next "bound"
	tries  int
	next   time.Time // when the next hello is due, while asking
	asked  time.Time // the last hello
	proof  proof     // of the "bound" that answers our last answer
}

// NewClient begins to bind a session; the first hello is due at once.
func NewClient(now time.Time, sid uint32, nonce Nonce) Client {
	return Client{sid: sid, nonce: nonce, asking: true, next: now}
}

// SID is the session's id.
func (c *Client) SID() uint32 { return c.sid }

// State is how far it is.
func (c *Client) State() ClientState { return c.state }

// Due is when Tick is to be called; zero: not before something happens.
func (c *Client) Due() time.Time {
	if !c.asking {
		return time.Time{}
	}
	return c.next
}

// Rebind asks the relay to bind the session to where packets come from now.
func (c *Client) Rebind(now time.Time) {
	if c.state != Lost && !c.asking {
		c.asking, c.tries, c.next = true, 0, now
	}
}

// Tick returns the hello that is due, for the relay; nil: none is.
func (c *Client) Tick(now time.Time) []byte {
	if !c.asking || now.Before(c.next) {
		return nil
	}
	if c.tries == bindTries {
		c.asking, c.state = false, Lost
		return nil
	}
	wait := min(250*time.Millisecond<<c.tries, time.Second)
	c.tries++
	c.asked, c.next = now, now.Add(wait)
	return (&bind{step: stepHello, sid: c.sid, proof: c.nonce.prove(purposeHello, c.sid, proof{})}).encode()
}

// Handle takes a bind packet that came from the relay's address, and returns what to answer; nil: nothing.
func (c *Client) Handle(now time.Time, pkt []byte) []byte {
	b, err := parseBind(pkt)
	if err != nil || b.sid != c.sid || c.state == Lost {
		return nil
	}
	switch {
	case b.step == stepUnbound && !c.asking && now.Sub(c.asked) >= rebindEvery:
		c.Rebind(now)
	case b.step == stepGone && c.asking && c.tries > 0:
		c.asking, c.state = false, Lost
	case b.step == stepGone && now.Sub(c.asked) >= rebindEvery: // anybody can say so: the answer to a hello decides
		c.Rebind(now)
	case b.step == stepChallenge && c.asking:
		c.proof = c.nonce.prove(purposeBound, c.sid, b.proof)
		return (&bind{step: stepAnswer, sid: c.sid, proof: c.nonce.prove(purposeAnswer, c.sid, b.proof)}).encode()
	case b.step == stepBound && c.asking && c.tries > 0 && c.proof != (proof{}) && c.proof.is(b.proof):
		c.asking, c.state, c.proof = false, Bound, proof{}
	}
	return nil
}
