package control

import (
	"net/netip"
	"slices"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/netmap"
)

// maxHomes is how many homes a reach names.
const maxHomes = 2

// Reachability is where this node may be found now. The zero value: nowhere that is known.
type Reachability struct {
	Endpoints []netip.AddrPort // best first: when not all fit, the last ones are left out
	Homes     []netmap.Home    // at most 2 are told
	NAT       netmap.NAT
	Relays    bool // it relays between members that ask
}

func (r *Reachability) equal(o *Reachability) bool {
	return slices.Equal(r.Endpoints, o.Endpoints) && slices.Equal(r.Homes, o.Homes) && r.NAT == o.NAT && r.Relays == o.Relays
}

// reachHome is a home as a reach tells it: one of the two.
type reachHome struct {
	Relay  string           `cbor:"0,keyasint,omitempty"` // URL
	Member *identity.PeerID `cbor:"1,keyasint,omitempty"`
}

func (h *reachHome) valid() bool {
	if h.Member != nil {
		return h.Relay == "" && !h.Member.IsZero()
	}
	return ledger.ValidRelayURL(h.Relay)
}

func encodeHome(h netmap.Home) reachHome {
	if h.Relay != "" {
		return reachHome{Relay: h.Relay}
	}
	return reachHome{Member: &h.Member}
}

// homes are those of a reach that parsed.
func (r *Reach) homes() []netmap.Home {
	var all []netmap.Home
	for _, h := range r.Homes {
		if h.Member != nil {
			all = append(all, netmap.Home{Member: *h.Member})
		} else {
			all = append(all, netmap.Home{Relay: h.Relay})
		}
	}
	return all
}

// nat is unknown too when a newer version knows of more kinds.
func (r *Reach) nat() netmap.NAT {
	if r.NAT > uint64(netmap.NATBlocked) {
		return netmap.NATUnknown
	}
	return netmap.NAT(r.NAT)
}

// newReach says what fits into a reach. Endpoints are cut first: homes lead to them.
func newReach(x *Reachability) *Reach {
	r := &Reach{NAT: uint64(x.NAT), Relays: x.Relays}
	for _, h := range x.Homes {
		if w := encodeHome(h); w.valid() && len(r.Homes) < maxHomes {
			r.Homes = append(r.Homes, w)
		}
	}
	for _, a := range x.Endpoints[:min(len(x.Endpoints), maxEndpoints)] {
		r.Endpoints = append(r.Endpoints, encodeEndpoint(a))
	}
	return r
}

// cut leaves out endpoints until the reach is within its bounds.
func (r *Reach) cut() {
	for len(r.Endpoints) > 0 && len(dcbor.Marshal(r)) > maxReach {
		r.Endpoints = r.Endpoints[:len(r.Endpoints)-1]
	}
}

// makeReach signs where we may be found now. Called with mu held, or before Run.
func (m *Mesh) makeReach() fact {
	r := newReach(&m.here)
	r.Node, r.Host, r.Port = m.self.ID(), m.cfg.Host, m.cfg.Port
	r.Seq = uint64(max(1, m.now().UnixMilli()))
	if last := m.reaches[r.Node]; last != nil {
		r.Seq = last.Seq + 1
	}
	r.cut()
	m.myReach = r.sign(m.self, m.network.ID)
	m.setReach(m.myReach)
	m.touch(r.Node, m.wall())
	return reachFact(m.myReach)
}

// SetReach tells where this node may be found. Others hear of it when it differs from before.
func (m *Mesh) SetReach(x Reachability) {
	x.Endpoints, x.Homes = slices.Clone(x.Endpoints), slices.Clone(x.Homes)
	_ = m.update(func(u *update) error { // f has no failure
		if !m.here.equal(&x) {
			m.here = x
			u.facts = append(u.facts, m.makeReach())
		}
		return nil
	})
}

// SetRelayURL offers the relay server that this node runs; "": none. It counts when this node is an admin or an admin
// allows it. The error is ledger.ErrOffer for what is no URL of one.
func (m *Mesh) SetRelayURL(url string) error {
	if url != "" && !ledger.ValidRelayURL(url) {
		return ledger.ErrOffer
	}
	return m.update(func(u *update) error {
		if m.relayURL != url {
			m.relayURL = url
			u.facts = append(u.facts, m.makeCard(m.myCard))
		}
		return nil
	})
}
