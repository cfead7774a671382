package guess

import "time"

const (
	// Sockets is how many temporary sockets the hard side opens.
	Sockets = 256
	// fanRounds times each of them pings: to open the way, then again for those whose port the easy side has met since,
	// and for what was lost. It is fanRounds × Sockets pings, of at most MaxProbes.
	fanRounds = 3
	fanBatch  = 16
	fanStep   = 50 * time.Millisecond // 320 a second: the earlier a port is open, the more pings may meet it
	fanEvery  = 2500 * time.Millisecond
)

// Fan is the hard side of an attempt: which of its sockets ping, and when. They all ping the easy side's one address.
type Fan struct {
	sockets  int
	round    int
	position int // in the round
	begin    time.Time
	next     time.Time
	end      time.Time
}

// NewFan plans an attempt of so many sockets, at most Sockets, that begins now.
func NewFan(now time.Time, sockets int) *Fan {
	return &Fan{sockets: min(max(sockets, 0), Sockets), begin: now, next: now, end: now.Add(Window)}
}

// Tick returns which sockets ping now: [from, to). Call it when Due has come.
func (f *Fan) Tick(now time.Time) (from, to int) {
	if f.round == fanRounds || f.sockets == 0 || now.Before(f.next) {
		return 0, 0
	}
	from = f.position
	to = min(from+fanBatch, f.sockets)
	f.position, f.next = to, now.Add(fanStep)
	if to == f.sockets {
		f.round++
		f.position, f.next = 0, f.begin.Add(time.Duration(f.round)*fanEvery)
	}
	return from, to
}

// Due is when Tick is to be called next; then, or when nothing is left to ping, when the attempt is over.
func (f *Fan) Due() time.Time {
	if f.round == fanRounds || f.sockets == 0 || f.end.Before(f.next) {
		return f.end
	}
	return f.next
}

// Over reports whether the attempt has failed: the sockets are to be closed.
func (f *Fan) Over(now time.Time) bool { return !now.Before(f.end) }
