package control

import (
	"errors"
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

// NewInvite makes an invite and its token, with hints to this node, as SetReach told of it, and to others, and with a pass
// for relay servers when there are any.
func (m *Mesh) NewInvite(tags []string, expires time.Duration, uses uint64) (ledger.Token, error) {
	var token *ledger.Token
	var until time.Time
	err := m.update(func(u *update) error {
		u.urgent = true
		keys, now := m.store.network.Keys, m.now()
		if expires != 0 {
			until = now.Add(expires)
		}
		var err error
		_, token, err = m.ledger.Invite(m.self, ledger.InviteParams{
			Tags: tags, Expires: expires, Uses: uses, K: keys[0], Generation: uint32(len(keys) - 1),
		}, now)
		return adminError(err)
	})
	if err != nil {
		return ledger.Token{}, err
	}
	m.rebuild() // the answerer knows the invite before anybody holds the token
	token.Hints = m.hints()
	if m.cfg.RelayPass != nil && m.relaysLead() {
		if pass := m.cfg.RelayPass(until); len(pass) <= ledger.MaxPass {
			token.RelayPass = pass
		}
	}
	for token.Check() != nil {
		switch {
		case len(token.Hints) > 0:
			token.Hints = token.Hints[:len(token.Hints)-1]
		case len(token.RelayPass) > 0:
			token.RelayPass = nil
		default:
			return *token, ledger.ErrTooLarge
		}
	}
	return *token, nil
}

// adminError names the one error of the ledger that users meet.
func adminError(err error) error {
	if errors.Is(err, ledger.ErrNotAdmin) {
		return ErrNotAdmin
	}
	return err
}

// Approve lets an offer of a member count, or with allow false no more. Errors: ErrNotAdmin, and those of ledger.Allow.
func (m *Mesh) Approve(id identity.PeerID, what ledger.Offer, value string, allow bool) error {
	return m.update(func(u *update) error {
		u.urgent = true
		_, err := m.ledger.Allow(m.self, id, what, value, allow, m.now())
		return adminError(err)
	})
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
