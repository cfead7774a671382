package meshnet

import (
	"context"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
)

// seekEntrance looks for members who may let this node in, beyond the addresses of the token, until ctx ends.
func (n *Node) seekEntrance(ctx context.Context, wg *sync.WaitGroup, token ledger.Token) error {
	if n.cfg.MDNS {
		lan, err := n.joinerOnLinks()
		if err != nil {
			return err
		}
		wg.Go(func() { _ = lan.Run(ctx) }) // ends with ctx only
		wg.Go(func() { n.seek.links.run(ctx, n.offerLinks) })
	}
	if n.seek.dht != nil {
		wg.Go(func() { _ = n.joinerByDHT(token).Run(ctx) })
	}
	return nil
}

// offerLinks has whoever announces itself on the links asked: a few at a time, drawn by chance, as most of them may be of
// other networks.
func (n *Node) offerLinks(now time.Time) time.Time {
	ask, next := n.seek.links.due(now, true, n.reached())
	n.discovered(sourceMDNS, ask)
	return next
}

// endSeeking forgets what was found for the join: it is to be asked once more, now as a member would.
func (n *Node) endSeeking() {
	n.seek.links.mu.Lock()
	n.seek.links.who = announcers{}
	n.seek.links.mu.Unlock()
}
