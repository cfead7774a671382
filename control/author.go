package control

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
)

// Errors of administrative acts.
var (
	ErrNotAdmin      = errors.New("not an admin of this network")
	ErrUnknownInvite = errors.New("unknown invite")
	ErrAmbiguous     = errors.New("more than one invite begins like that")
)

// NewInvite makes an invite and its token, with hints where to find this node and a few others.
func (m *Mesh) NewInvite(tags []string, expires time.Duration, uses uint64, own []netip.AddrPort) (ledger.Token, error) {
	var token *ledger.Token
	err := m.update(func(u *update) error {
		u.urgent = true
		keys := m.store.network.Keys
		var err error
		_, token, err = m.ledger.Invite(m.self, ledger.InviteParams{
			Tags: tags, Expires: expires, Uses: uses, K: keys[0], Generation: uint32(len(keys) - 1),
		}, m.now())
		return adminError(err)
	})
	if err != nil {
		return ledger.Token{}, err
	}
	token.Hints = m.hints(own)
	for token.Check() != nil && len(token.Hints) > 0 {
		token.Hints = token.Hints[:len(token.Hints)-1]
	}
	m.rebuild() // the answerer knows the invite before anybody holds the token
	return *token, token.Check()
}

// hints are addresses of this node first, then one each of members that are in session with us.
func (m *Mesh) hints(own []netip.AddrPort) []ledger.Hint {
	var all []ledger.Hint
	for _, a := range own {
		if len(all) == ledger.MaxHints-1 && len(m.Sessions()) > 0 {
			break
		}
		if len(all) < ledger.MaxHints {
			all = append(all, ledger.Hint{Addr: a.String(), Node: m.self.ID()})
		}
	}
	for _, id := range m.Sessions() {
		p := m.current.Load().Peer(id)
		if len(all) == ledger.MaxHints || p == nil || len(p.Endpoints) == 0 {
			continue
		}
		m.mu.Lock()
		good := m.book.addrs(id)
		m.mu.Unlock()
		if len(good) > 0 {
			all = append(all, ledger.Hint{Addr: good[0].String(), Node: id})
		}
	}
	return all
}

// adminError names the one error of the ledger that users meet.
func adminError(err error) error {
	if errors.Is(err, ledger.ErrNotAdmin) {
		return ErrNotAdmin
	}
	return err
}

// RevokeMember revokes a member for good.
func (m *Mesh) RevokeMember(id identity.PeerID, purge bool) error {
	return m.update(func(u *update) error {
		u.urgent = true
		_, err := m.ledger.RevokeMember(m.self, id, purge, m.now())
		return adminError(err)
	})
}

// RevokeInvite ends an invite, named by the beginning of its id.
func (m *Mesh) RevokeInvite(name string) error {
	var found []Invite
	for _, inv := range m.Invites() {
		if name != "" && strings.HasPrefix(inv.ID.String(), strings.ToLower(name)) {
			found = append(found, inv)
		}
	}
	switch len(found) {
	case 0:
		return ErrUnknownInvite
	case 1:
	default:
		return ErrAmbiguous
	}
	return m.update(func(u *update) error {
		u.urgent = true
		_, err := m.ledger.RevokeInvite(m.self, found[0].ID, false, m.now())
		return adminError(err)
	})
}
