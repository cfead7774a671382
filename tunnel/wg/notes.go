package wg

import "sync"

// The reasons of a note.
const (
	noteWant    uint32 = 1 << iota // packets wait and there is no session
	noteRekey                      // the session is used and gets old
	noteConfirm                    // a first packet came under a session that waits for it
	noteArm                        // a timer has to run
)

// Notes is what the packet path leaves for the machine. Each peer is in it at most once.
type Notes struct {
	// Wake gets a value when there are notes.
	Wake chan struct{}

	mu    sync.Mutex
	peers []*Peer // guarded by mu
}

func newNotes() *Notes { return &Notes{Wake: make(chan struct{}, 1)} }

// leave notes a reason to look at a peer.
func (n *Notes) leave(p *Peer, why uint32) {
	if p.notes.Or(why) != 0 {
		return // it waits already
	}
	n.mu.Lock()
	n.peers = append(n.peers, p)
	n.mu.Unlock()
	select {
	case n.Wake <- struct{}{}:
	default:
	}
}

// take empties the list.
func (n *Notes) take() []*Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	peers := n.peers
	n.peers = nil
	return peers
}
