package tunnel

import "sync/atomic"

// reason is why a packet was dropped, or another rare event worth a number.
type reason int

const (
	outMalformed reason = iota
	outControl
	outSource
	outNoMember
	outTooBig
	outFilter
	outStackSource
	outNoSession
	outUsedUp
	outNoLink
	outDelayed
	parkFull
	parkExpired
	parkRemoved
	inShort
	inNoSession
	inForged
	inReplayed
	inMalformed
	inControl
	inSource
	inDestination
	inFilter
	inTUNWrite
	doorMAC
	doorFull
	doorLimited
	doorCookie
	icmpLimited
	forwardRefused
	forwardLimit
	unknownMember
	reasons // their number
)

var reasonNames = [reasons]string{
	outMalformed:   "out_malformed",    // not a whole IP packet
	outControl:     "out_control",      // a program touched the control subnet
	outSource:      "out_source",       // from the OS, but not from an own address
	outNoMember:    "out_no_member",    // nobody has the destination
	outTooBig:      "out_too_big",      // larger than the inner MTU
	outFilter:      "out_filter",       // policy
	outStackSource: "out_stack_source", // from the netstack between addresses that never meet
	outNoSession:   "out_no_session",   // the session ended while packets were on their way
	outUsedUp:      "out_used_up",      // more packets than one session may carry
	outNoLink:      "out_no_link",      // the socket does not know the member
	outDelayed:     "out_delayed",      // the OS TUN's queue stood: a sender was too fast
	parkFull:       "park_full",        // waited for a session, pushed out by later ones
	parkExpired:    "park_expired",     // waited for a session for too long
	parkRemoved:    "park_removed",     // waited for a member that was removed
	inShort:        "in_short",         // too short for WireGuard
	inNoSession:    "in_no_session",    // under a session that is over or never was
	inForged:       "in_forged",        // not sealed by the session's peer
	inReplayed:     "in_replayed",      // came before, or far too late
	inMalformed:    "in_malformed",     // not a whole IP packet, or no message of WireGuard
	inControl:      "in_control",       // only one end in the control subnet
	inSource:       "in_source",        // from an address that is not the member's
	inDestination:  "in_destination",   // for an address that is not ours
	inFilter:       "in_filter",        // policy
	inTUNWrite:     "in_tun_write",     // packets that the OS TUN refused, e.g. while it is down
	doorMAC:        "door_mac",         // handshake messages that are not meant for this node
	doorFull:       "door_full",        // handshake messages beyond what can be worked off
	doorLimited:    "door_limited",     // initiations beyond their source's share, under load
	doorCookie:     "door_cookie",      // initiations answered with a cookie, under load
	icmpLimited:    "icmp_limited",     // ICMP errors not sent, too many
	forwardRefused: "forward_refused",  // inbound connections that no target took
	forwardLimit:   "forward_limit",    // inbound flows above the limit
	unknownMember:  "unknown_member",   // a handshake was asked for with someone who is no member
}

// counters are safe for concurrent use. The zero value is ready.
type counters [reasons]atomic.Uint64

func (c *counters) add(r reason) { c[r].Add(1) }

func (c *counters) addN(r reason, n uint64) {
	if n > 0 {
		c[r].Add(n)
	}
}

func (c *counters) snapshot() map[string]uint64 {
	m := make(map[string]uint64, reasons)
	for i := range c {
		m[reasonNames[i]] = c[i].Load()
	}
	return m
}
