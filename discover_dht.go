package meshnet

import (
	"context"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/discovery/dht"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	// dhtFile keeps nodes of the DHT, in the state folder.
	dhtFile = "dht"
	// keepDHTEvery is how often it is written.
	keepDHTEvery = 10 * time.Minute
	// reopenDHT is how long after its socket failed there is another.
	reopenDHT = 30 * time.Second
	// maxMet is how many open invites, the newest ones, members can be met by.
	maxMet = 32
	// maxMetKeys is under how many generations of K members look for others.
	maxMetKeys = 3
)

// netSecret is where members of the network meet in the DHT.
func netSecret(k identity.Secret, network identity.NetworkID) identity.Secret {
	return identity.Derive(k[:], network, "meshnet/dht/v1")
}

// inviteSecret is where the holder of an invite meets members.
func inviteSecret(psk identity.Secret, network identity.NetworkID) identity.Secret {
	return identity.Derive(psk[:], network, "meshnet/dht-invite/v1")
}

// runDHT keeps the DHT's socket open until ctx ends.
func (n *Node) runDHT(ctx context.Context) {
	for {
		err := n.seek.dht.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		n.log.Warn("DHT", "err", err)
		pause := time.NewTimer(reopenDHT)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// keepDHT writes the known nodes of the DHT from time to time, and when ctx ends.
func (n *Node) keepDHT(ctx context.Context) {
	tick := time.NewTicker(keepDHTEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if err := n.state.write(dhtFile, n.seek.dht.Save()); err != nil {
			n.log.Warn("keep the nodes of the DHT", "err", err)
		}
	}
}

// memberByDHT leaves where this node may be found for members and for those who hold an open invite, and looks for
// members while they are lacking.
func (n *Node) memberByDHT() *dht.Rendezvous {
	return dht.NewRendezvous(n.seek.dht, dht.RendezvousConfig{
		ID: n.id.ID(), Lacking: n.lacking, Clock: func() time.Time { return n.mesh.MeshTime() }, Logger: n.log,
		Secrets: func(time.Time) []dht.Use {
			var uses []dht.Use
			for i, k := range n.mesh.Map().Keys {
				if i < maxMetKeys {
					uses = append(uses, dht.Use{Secret: netSecret(k, n.network), Read: true, Write: i == 0})
				}
			}
			for _, psk := range n.mesh.InvitePSKs(maxMet) {
				uses = append(uses, dht.Use{Secret: inviteSecret(psk, n.network), Write: true})
			}
			return uses
		},
		Own:       func() []byte { return n.mesh.OwnReach(dht.MaxData) },
		Connected: func(r dht.Record) bool { return n.mesh.InSession(r.Data) },
		Found: func(r dht.Record) {
			if where, ok := n.mesh.TakeReach(r.Data); ok {
				n.discovered(sourceDHT, where.Addrs)
			}
		},
	})
}

// maxMetRelays is how many relay servers that somebody left in the DHT a joiner connects to.
const maxMetRelays = 4

// joinerByDHT looks for members at the place that the token's secret leads to.
func (n *Node) joinerByDHT(token ledger.Token) *dht.Rendezvous {
	relays := make(map[string]bool) // Found is called by one lookup at a time
	return dht.NewRendezvous(n.seek.dht, dht.RendezvousConfig{
		ID: n.id.ID(), Lacking: func() bool { return true }, Own: func() []byte { return nil }, Logger: n.log,
		Secrets: func(time.Time) []dht.Use {
			return []dht.Use{{Secret: inviteSecret(token.PSK, token.Network), Read: true}}
		},
		Found: func(r dht.Record) {
			where, err := control.ReadReach(r.Data, token.Network)
			if err != nil || dht.KeyOf(where.Node) != r.Key {
				return
			}
			n.discovered(sourceDHT, where.Addrs)
			for _, url := range where.Relays {
				if !relays[url] && len(relays) == maxMetRelays {
					continue
				}
				relays[url] = true
				n.useRelay(url)
				n.offer(datagram.Place{Relay: where.Node})
			}
		},
	})
}
