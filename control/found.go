package control

import (
	"net/netip"
	"slices"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// Whereabouts are where somebody says that it may be found. Immutable.
type Whereabouts struct {
	Node   identity.PeerID
	Addrs  []netip.AddrPort // at most 12; none of one host's or one link's own
	Relays []string         // URLs of relay servers that lead to it, at most 2
}

// ReadReach reads a reach that was left somewhere by whoever signed it; whether that is a member is not known by it.
// ErrReach, or an error of the signature.
func ReadReach(raw []byte, network identity.NetworkID) (Whereabouts, error) {
	r, err := parseReach(slices.Clone(raw), network)
	if err != nil {
		return Whereabouts{}, err
	}
	return r.whereabouts(), nil
}

func (r *Reach) whereabouts() Whereabouts {
	w := Whereabouts{Node: r.Node}
	for _, a := range r.addrs() {
		if ip := a.Addr(); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !slices.Contains(w.Addrs, a) {
			w.Addrs = append(w.Addrs, a)
		}
	}
	for _, h := range r.homes() {
		if h.Relay != "" {
			w.Relays = append(w.Relays, h.Relay)
		}
	}
	return w
}

// OwnReach is where this node may be found, signed, in at most limit bytes: endpoints that do not fit are left out, the
// last ones first. nil: there is nothing to tell, or not even its beginning fits.
func (m *Mesh) OwnReach(limit int) []byte {
	m.mu.Lock()
	mine := *m.myReach
	m.mu.Unlock()
	if len(mine.Endpoints) == 0 && len(mine.Homes) == 0 {
		return nil
	}
	for len(mine.signed) > limit {
		if len(mine.Endpoints) == 0 {
			return nil
		}
		mine.Endpoints = mine.Endpoints[:len(mine.Endpoints)-1]
		mine.sign(m.self, m.network.ID)
	}
	return mine.signed
}

// TakeReach takes a reach that was left somewhere: a newer one of a member than is known counts from here on, and a
// member that only relay servers lead to is asked there to answer. It returns where its author may be, who may be a member
// that this node has not heard of yet. ok is false for what is not signed, of this node, or of one that was revoked.
func (m *Mesh) TakeReach(raw []byte) (where Whereabouts, ok bool) {
	r, err := parseReach(slices.Clone(raw), m.network.ID)
	if err != nil || r.Node == m.self.ID() {
		return Whereabouts{}, false
	}
	member := false
	err = m.update(func(u *update) error {
		st := m.ledger.State(m.now())
		if _, known := st.Member(r.Node); !known {
			return nil
		}
		if member = st.IsMember(r.Node); !member {
			return ledger.ErrRevoked
		}
		return m.mergeReach(u, r.signed)
	})
	if err != nil {
		return Whereabouts{}, false
	}
	where = r.whereabouts()
	if member && len(where.Relays) > 0 {
		select {
		case m.introductions <- []datagram.Place{{Relay: r.Node}}:
		default: // enough are under way
		}
	}
	return where, true
}

// InSession reports whether a reach is by a member that is in session with this node, and still what it says.
func (m *Mesh) InSession(raw []byte) bool {
	r, err := parseReach(slices.Clone(raw), m.network.ID)
	if err != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, last := m.sessions[r.Node], m.reaches[r.Node]
	return s != nil && s.done && last != nil && last.Seq == r.Seq
}

// InvitePSKs are the secrets of the invites that somebody may still come with, at most so many, the newest first.
func (m *Mesh) InvitePSKs(most int) []identity.Secret {
	m.mu.Lock()
	keys := m.store.network.Keys
	m.mu.Unlock()
	var all []identity.Secret
	for _, inv := range slices.Backward(m.Invites()) {
		for _, k := range keys {
			if inv.Open && len(all) < most && ledger.KeyID(k) == inv.KID {
				all = append(all, ledger.InvitePSK(k, m.network.ID, inv.Short))
			}
		}
	}
	return all
}
