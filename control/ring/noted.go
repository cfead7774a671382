package ring

import (
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	deadFor  = 5 * time.Second
	againIn  = 10 * time.Second
	maxNoted = 256
)

// noted is what this node learnt of its own signals: neighbours that lately led nowhere, and which way it began with.
// What carrying signals of others teaches is not noted, since those others could make it up. The zero value is empty.
type noted struct {
	dead  map[end]time.Time         // until when
	asked map[identity.PeerID]asked // by target
}

// end is a neighbour that no way leads from to a target.
type end struct{ neighbour, target identity.PeerID }

// asked is when a target was signalled last, and by which way first.
type asked struct {
	at  time.Time
	way way
}

func (n *noted) deadEnd(now time.Time, neighbour, target identity.PeerID) {
	if n.dead == nil || len(n.dead) >= maxNoted {
		n.dead = make(map[end]time.Time)
	}
	n.dead[end{neighbour, target}] = now.Add(deadFor)
}

func (n *noted) isDeadEnd(now time.Time, neighbour, target identity.PeerID) bool {
	return now.Before(n.dead[end{neighbour, target}])
}

// first is the way to begin with: not that of a moment ago.
func (n *noted) first(now time.Time, target identity.PeerID) way {
	w := wayBefore
	if last, ok := n.asked[target]; ok && now.Sub(last.at) < againIn {
		w = last.way.other()
	}
	if n.asked == nil || len(n.asked) >= maxNoted {
		n.asked = make(map[identity.PeerID]asked)
	}
	n.asked[target] = asked{now, w}
	return w
}
