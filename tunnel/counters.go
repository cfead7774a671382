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
	outQueueFull
	outRead
	parkFull
	parkExpired
	parkRemoved
	wantFull
	inMalformed
	inControl
	inNoMember
	inDestination
	inFilter
	inTUNWrite
	icmpLimited
	forwardRefused
	forwardLimit
	deviceConfig
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
	outQueueFull:   "out_queue_full",   // the device reads slower than the netstack writes
	outRead:        "out_read",         // the OS TUN gave something unreadable
	parkFull:       "park_full",        // waited for a peer, pushed out by later ones
	parkExpired:    "park_expired",     // waited for a peer for too long
	parkRemoved:    "park_removed",     // waited for a member that was removed
	wantFull:       "want_full",        // too many members wanted at once; asked again by the next packet
	inMalformed:    "in_malformed",     // not a whole IP packet
	inControl:      "in_control",       // only one end in the control subnet
	inNoMember:     "in_no_member",     // from an address that no member has
	inDestination:  "in_destination",   // for an address that is not ours
	inFilter:       "in_filter",        // policy
	inTUNWrite:     "in_tun_write",     // batches that the OS TUN refused, e.g. while it is down
	icmpLimited:    "icmp_limited",     // ICMP errors not sent, too many
	forwardRefused: "forward_refused",  // inbound connections that no target took
	forwardLimit:   "forward_limit",    // inbound flows above the limit
	deviceConfig:   "device_config",    // the device refused a configuration
	unknownMember:  "unknown_member",   // Install for someone who is no member
}

// counters are safe for concurrent use. The zero value is ready.
type counters [reasons]atomic.Uint64

func (c *counters) add(r reason) { c[r].Add(1) }

func (c *counters) snapshot() map[string]uint64 {
	m := make(map[string]uint64, reasons)
	for i := range c {
		m[reasonNames[i]] = c[i].Load()
	}
	return m
}
