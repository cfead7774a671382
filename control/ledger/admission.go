package ledger

import (
	"errors"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// Admit is a joiner's keys, signed by the joiner and with the secret of the invite it holds. Immutable. It says
// nothing of time: the same joiner with the same invite makes the same admit again.
type Admit struct {
	Network    identity.NetworkID `cbor:"0,keyasint"`
	Invite     identity.Hash      `cbor:"1,keyasint"`
	Node       identity.PeerID    `cbor:"2,keyasint"`
	WG         identity.WGKey     `cbor:"3,keyasint"`
	Disco      identity.DiscoKey  `cbor:"4,keyasint"`
	Generation uint32             `cbor:"5,keyasint"`
	ID         identity.Hash      `cbor:"-"`
	Raw        []byte             `cbor:"-"` // as it came: the body, the signature of the invite, that of the node
}

// NewAdmit makes the admit of node under an invite, whose secret the token carries as a seed.
func NewAdmit(node *identity.Identity, network identity.NetworkID, invite identity.Hash, seed identity.Secret) *Admit {
	a := &Admit{
		Network: network, Invite: invite,
		Node: node.ID(), WG: node.WG(), Disco: node.Disco(), Generation: node.Generation(),
	}
	body := dcbor.Marshal(a)
	inviteSig := identity.FromSeed(seed).Sign(identity.PurposeAdmitInvite, network, body)
	nodeSig := node.Sign(identity.PurposeAdmitNode, network, body)
	a.ID = identity.Sum(identity.PurposeAdmitNode, body)
	a.Raw = dcbor.Marshal([][]byte{body, inviteSig, nodeSig})
	return a
}

// ParseAdmit reads an admit to a network and checks the node's signature. That of the invite needs the invite:
// VerifyInvite. The result keeps raw, which must not be changed any more.
func ParseAdmit(raw []byte, network identity.NetworkID) (*Admit, error) {
	if len(raw) > maxRecord {
		return nil, ErrTooLarge
	}
	parts, err := parseParts(raw, 3)
	if err != nil {
		return nil, err
	}
	a := &Admit{}
	if err := decode(parts[0], a, 5); err != nil {
		return nil, err
	}
	if a.Network != network {
		return nil, ErrForeignNetwork
	}
	if a.WG == (identity.WGKey{}) || a.Disco == (identity.DiscoKey{}) {
		return nil, ErrMalformed
	}
	if identity.Verify(a.Node, identity.PurposeAdmitNode, network, parts[0], parts[2]) != nil {
		return nil, ErrBadSignature
	}
	a.ID = identity.Sum(identity.PurposeAdmitNode, parts[0])
	a.Raw = raw
	return a, nil
}

// admitID is the id of an admit that is not verified yet.
func admitID(raw []byte) (identity.Hash, error) {
	if len(raw) > maxRecord {
		return identity.Hash{}, ErrTooLarge
	}
	parts, err := parseParts(raw, 3)
	if err != nil {
		return identity.Hash{}, err
	}
	return identity.Sum(identity.PurposeAdmitNode, parts[0]), nil
}

// VerifyInvite checks the signature of the invite with the given public key.
func (a *Admit) VerifyInvite(key identity.PeerID) error {
	parts, err := parseParts(a.Raw, 3)
	if err != nil || identity.Verify(key, identity.PurposeAdmitInvite, a.Network, parts[0], parts[1]) != nil {
		return ErrBadSignature
	}
	return nil
}

// Acceptance is a member's word that it let a joiner in. Immutable.
type Acceptance struct {
	Admit    identity.Hash   `cbor:"0,keyasint"`
	Acceptor identity.PeerID `cbor:"1,keyasint"`
	Prev     *identity.Hash  `cbor:"2,keyasint,omitempty"` // the acceptor's last one before
	Heads    []identity.Hash `cbor:"3,keyasint,omitempty"` // of the ledger, as the acceptor knew it
	Time     uint64          `cbor:"4,keyasint"`           // unix milliseconds, mesh time
	ID       identity.Hash   `cbor:"-"`
	Signed   Signed          `cbor:"-"`
}

// ParseAcceptance reads an acceptance and checks its signature.
func ParseAcceptance(s Signed, network identity.NetworkID) (*Acceptance, error) {
	if len(s.Body) > maxRecord {
		return nil, ErrTooLarge
	}
	x := new(Acceptance)
	if err := decode(s.Body, x, 4); err != nil {
		return nil, err
	}
	if !ascending(x.Heads, maxHeads) || x.Time > maxTime {
		return nil, ErrMalformed
	}
	if identity.Verify(x.Acceptor, identity.PurposeAcceptance, network, s.Body, s.Sig) != nil {
		return nil, ErrBadSignature
	}
	x.ID, x.Signed = identity.Sum(identity.PurposeAcceptance, s.Body), s
	return x, nil
}

func signAcceptance(acceptor *identity.Identity, network identity.NetworkID, x *Acceptance) Signed {
	x.Acceptor = acceptor.ID()
	body := dcbor.Marshal(x)
	return Signed{body, acceptor.Sign(identity.PurposeAcceptance, network, body)}
}

// parseInvite reads a statement that must be an invite.
func parseInvite(s Signed, network identity.NetworkID) (*Statement, *InviteTerms, error) {
	st, err := ParseStatement(s, network)
	if err != nil {
		return nil, nil, err
	}
	terms, ok := st.Invite()
	if !ok {
		return nil, nil, errNoInvite
	}
	return st, terms, nil
}

var errNoInvite = errors.New("not an invite")
