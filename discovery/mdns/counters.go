package mdns

import "sync/atomic"

// Counters are what a Service has done since it was made. All but Sent count datagrams that came in, or what was in them.
type Counters struct {
	Sent         uint64 // datagrams sent
	SendErrors   uint64 // datagrams that the system did not take
	Unrelated    uint64 // about other services
	Overflow     uint64 // dropped because the loop was behind
	OverBudget   uint64 // dropped because there were too many
	OffLink      uint64 // from elsewhere than the link they came in by
	Malformed    uint64 // not readable
	OtherNetwork uint64 // announcements with a tag that is not ours
	Refused      uint64 // announcements without an address to believe, or from a sender they do not belong to
	Full         uint64 // announcements that there was no room for
	Conflicts    uint64 // records that contradict our own
}

// counters is Counters as it is counted. Safe for concurrent use.
type counters struct {
	sent, sendErrors, unrelated, overflow, overBudget, offLink, malformed, otherNetwork, refused, full, conflicts atomic.Uint64
}

func (c *counters) snapshot() Counters {
	return Counters{
		Sent: c.sent.Load(), SendErrors: c.sendErrors.Load(), Unrelated: c.unrelated.Load(), Overflow: c.overflow.Load(),
		OverBudget: c.overBudget.Load(), OffLink: c.offLink.Load(), Malformed: c.malformed.Load(),
		OtherNetwork: c.otherNetwork.Load(), Refused: c.refused.Load(), Full: c.full.Load(), Conflicts: c.conflicts.Load(),
	}
}
