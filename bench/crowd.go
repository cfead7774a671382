package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

const (
	crowdPort   = 41820
	inviteSize  = 100                 // members let in with one invite
	crowdAge    = 30 * 24 * time.Hour // since the network was founded
	maxCrowd    = 1 << 14             // members: more, and two nodes no longer list their records to each other
	admitEvery  = 2 * time.Minute     // between two admissions; maxCrowd of them fit into crowdAge
	activeNet   = 0                   // second byte of the first active member's address, 10.0.0.1
	silentNet   = 128                 // of the first silent one's
	activeRoute = "10.0.0.0/9"        // holds the active members' addresses, and nobody else's
)

// crowd is a network of many members that is made up, down to the last signature. The founder is the node under test.
// Of the others some are active, the rest is known and silent. Immutable.
type crowd struct {
	network identity.NetworkID
	key     identity.Secret // of the network
	founder *identity.Identity
	inner   netip.Addr // the founder's IPv4 address in the network
	others  []citizen  // the active ones first
	ledger  *ledger.Ledger
}

// citizen is a member of a crowd.
type citizen struct {
	id    *identity.Identity
	name  string
	outer netip.AddrPort // where it says it may be found: every one in a /24 of its own
	inner netip.Addr     // its IPv4 address in the network
}

// newCrowd makes a network of a number of members, the founder included, some of them active.
func newCrowd(members, active int, now time.Time) (*crowd, error) {
	if err := checkCrowd(members, active); err != nil {
		return nil, err
	}
	c := &crowd{founder: identity.New(), key: identity.NewSecret()}
	founded := now.Add(-crowdAge)
	g, err := ledger.Found(c.founder, ledger.FoundParams{
		Name: "crowd", Prefix4: netip.MustParsePrefix("100.88.0.0/16"),
	}, c.key, founded)
	if err != nil {
		return nil, err
	}
	c.network = g.ID
	if c.ledger, err = ledger.New(g.Signed); err != nil {
		return nil, err
	}
	for i := range members - 1 {
		c.others = append(c.others, citizen{
			id: identity.New(), name: fmt.Sprintf("member-%05d", i+1), outer: outerAddr(i, active),
		})
	}
	if err := c.admitAll(founded); err != nil {
		return nil, err
	}
	// As the founder's node does within a minute of an admission.
	if _, err := c.ledger.Keep(c.founder, c.ledger.State(now).Unkept, now); err != nil {
		return nil, err
	}
	return c, c.look(now)
}

func checkCrowd(members, active int) error {
	if members < 2 || members > maxCrowd || active < 1 || active >= members {
		return fmt.Errorf("%d members, %d of them active: want 2 to %d, and 1 to all but one", members, active, maxCrowd)
	}
	return nil
}

// outerAddr is where the i-th member is found.
func outerAddr(i, active int) netip.AddrPort {
	net := activeNet
	if i >= active {
		net, i = silentNet, i-active
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(net + i>>8), byte(i), 1}), crowdPort)
}

// admitAll has the founder let everybody in, one after the other.
func (c *crowd) admitAll(at time.Time) error {
	var last *identity.Hash // acceptance
	for from := 0; from < len(c.others); from += inviteSize {
		part := c.others[from:min(from+inviteSize, len(c.others))]
		at = at.Add(time.Second)
		_, token, err := c.ledger.Invite(c.founder, ledger.InviteParams{Uses: uint64(len(part)), K: c.key}, at)
		if err != nil {
			return err
		}
		for i := range part {
			at = at.Add(admitEvery)
			if last, err = c.admit(part[i].id, token, last, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// admit lets one member in. The acceptance is made here and not by the ledger, which would look at all members for
// each.
func (c *crowd) admit(id *identity.Identity, token *ledger.Token, last *identity.Hash, at time.Time) (*identity.Hash, error) {
	a := ledger.NewAdmit(id, c.network, token.InviteID(), token.Seed)
	if _, err := c.ledger.AddAdmit(a.Raw); err != nil {
		return nil, err
	}
	body := dcbor.Marshal(&ledger.Acceptance{
		Admit: a.ID, Acceptor: c.founder.ID(), Prev: last, Heads: c.ledger.Heads(), Time: uint64(at.UnixMilli()),
	})
	s := ledger.Signed{Body: body, Sig: c.founder.Sign(identity.PurposeAcceptance, c.network, body)}
	if _, err := c.ledger.AddAcceptance(s); err != nil {
		return nil, err
	}
	made := identity.Sum(identity.PurposeAcceptance, body)
	return &made, nil
}

// look notes the addresses that the ledger gives.
func (c *crowd) look(now time.Time) error {
	st := c.ledger.State(now)
	if len(st.Members) != len(c.others)+1 || len(st.Unkept) > 0 {
		return fmt.Errorf("the ledger has %d members, %d of them not kept; want %d", len(st.Members), len(st.Unkept), len(c.others)+1)
	}
	c.inner = st.Members[0].IP4
	for i := range c.others {
		m, _ := st.Member(c.others[i].id.ID())
		c.others[i].inner = m.IP4
	}
	return nil
}

// psk is the pre-shared key of a member and the founder.
func (c *crowd) psk(of *identity.Identity) identity.Secret {
	return ledger.FloorPSK(c.key, c.network, c.founder.WG(), of.WG())
}

// card is what a member says about itself, signed.
func (c *crowd) card(of *citizen, now time.Time) []byte {
	return c.signed(of.id, identity.PurposeCard, &control.Card{
		Node: of.id.ID(), Seq: uint64(now.UnixMilli()), Name: of.name, Boot: eightBytes(), Version: "1.0.0",
		WG: of.id.WG(), Disco: of.id.Disco(), Generation: of.id.Generation(),
	})
}

// reach is where a member may be found, signed.
func (c *crowd) reach(of *citizen, now time.Time) []byte {
	endpoint := binary.BigEndian.AppendUint16(of.outer.Addr().AsSlice(), of.outer.Port())
	return c.signed(of.id, identity.PurposeReach, &control.Reach{
		Node: of.id.ID(), Seq: uint64(now.UnixMilli()), Endpoints: [][]byte{endpoint}, Host: eightBytes(), Port: of.outer.Port(),
	})
}

func (c *crowd) signed(by *identity.Identity, purpose identity.Purpose, what any) []byte {
	body := dcbor.Marshal(what)
	return ledger.Signed{Body: body, Sig: by.Sign(purpose, c.network, body)}.Marshal()
}

func eightBytes() [8]byte {
	s := identity.NewSecret()
	return [8]byte(s[:8])
}
