package meshnet

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// defaultExpiry of an invite.
const defaultExpiry = 24 * time.Hour

// relayKeyText names the relay pass key to relay servers: its public half.
func relayKeyText(seed identity.Secret) string {
	id := identity.FromSeed(seed).ID()
	return hex.EncodeToString(id[:])
}

// adminError turns control's sentinels into this package's.
func adminError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrNotAdmin):
		return &Hinted{fmt.Errorf("%s: %w", what, ErrNotAdmin), "ask an admin; `meshnet members` shows who is one"}
	case errors.Is(err, ledger.ErrRevoked):
		return fmt.Errorf("%s: already %w", what, ErrRevoked)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Invite makes an invite. Admins only. The token says where to ask, so right after the start it waits for a relay server
// to be home to this node, if there is one, for up to 5 s or until ctx ends.
func (n *Node) Invite(ctx context.Context, o InviteOptions) (Invitation, error) {
	expires := o.Expires
	switch {
	case expires == 0:
		expires = defaultExpiry
	case expires < 0:
		expires = 0
	}
	n.awaitHome(ctx)
	n.tellReach() // what was just learnt is not told yet
	token, err := n.mesh.NewInvite(o.Tags, expires, o.Uses)
	if err != nil {
		return Invitation{}, adminError("invite", err)
	}
	id := token.InviteID().String()
	return Invitation{ID: id[:32], Token: token.String()}, nil
}

// awaitHome waits until a relay server is home to this node, while that may still be found out.
func (n *Node) awaitHome(ctx context.Context) {
	ctx, cancel := context.WithDeadline(ctx, n.started.Add(rendezvousAfter))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(n.relayServers()) > 0 && !slices.ContainsFunc(n.out.homed(), func(h netmap.Home) bool { return h.Relay != "" }) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Invites lists all invites, in the order in which they were made.
func (n *Node) Invites() []InviteStatus {
	all := []InviteStatus{}
	now := n.mesh.MeshTime()
	for _, inv := range n.mesh.Invites() {
		s := InviteStatus{
			ID: inv.Name, Created: inv.Created.UTC(), Expires: optionalTime(inv.Expires),
			Uses: inv.Allowed, Used: inv.Used, Tags: list(inv.Tags), State: "open",
		}
		switch {
		case inv.Revoked:
			s.State = "revoked"
		case !inv.Expires.IsZero() && now.After(inv.Expires):
			s.State = "expired"
		case inv.Allowed > 0 && inv.Used >= inv.Allowed:
			s.State = "used"
		}
		all = append(all, s)
	}
	return all
}

// RevokeInvite ends an invite, named by its id or an unambiguous beginning of it. Whom it let in stays.
func (n *Node) RevokeInvite(_ context.Context, id string) error {
	return adminError("revoke invite", n.mesh.RevokeInvite(id))
}

// RevokeMember removes a member for good, named by name, address or id.
func (n *Node) RevokeMember(_ context.Context, peer string) error {
	p, err := n.find(peer)
	if err != nil {
		return fmt.Errorf("revoke member: %w", err)
	}
	return adminError("revoke member", n.mesh.RevokeMember(p.ID, false))
}

// Members lists everybody who was ever admitted, in order.
func (n *Node) Members() []MemberStatus {
	all := []MemberStatus{}
	for _, m := range n.mesh.Members() {
		s := MemberStatus{
			ID: m.ID.String(), Name: optional(m.Name), IPs: []netip.Addr{}, Roles: []string{}, Tags: list(m.Tags),
			Admitted: m.Admitted.UTC(), Invite: optional(m.Invited), Revoked: optionalTime(m.Revoked),
			Self: m.ID == n.id.ID(),
		}
		if m.IP4.IsValid() {
			s.IPs = append(s.IPs, m.IP4)
		}
		s.IPs = append(s.IPs, m.IP6)
		if m.Admin {
			s.Roles = append(s.Roles, string(netmap.RoleAdmin))
		}
		if slices.ContainsFunc(m.Offers, func(o control.Offer) bool { return o.What == ledger.OfferRelay && o.Offered && o.Approved }) {
			s.Roles = append(s.Roles, string(netmap.RoleRelay))
		}
		if !m.Acceptor.IsZero() {
			by := m.Acceptor.String()
			s.By = &by
		}
		all = append(all, s)
	}
	return all
}

func (n *Node) whoIs(p *netmap.Peer) WhoIs {
	return WhoIs{
		ID: p.ID.String(), Name: optional(p.Name), FQDN: optional(p.FQDN), IPs: ips(p), Roles: roles(p),
		Tags: list(p.Tags), Self: p.ID == n.id.ID(),
	}
}

// WhoIs says who owns an address. Control addresses are nobody's.
func (n *Node) WhoIs(addr netip.Addr) (WhoIs, error) {
	p := n.mesh.Map().ByIP(addr.Unmap())
	if p == nil || p.Control == addr {
		return WhoIs{}, fmt.Errorf("%w: nobody has the address %s", ErrUnknownPeer, addr)
	}
	return n.whoIs(p), nil
}

// Lookup says who a name, an FQDN, an address or a PeerID means; "" is this node.
func (n *Node) Lookup(peer string) (WhoIs, error) {
	p, err := n.find(peer)
	if err != nil {
		return WhoIs{}, err
	}
	return n.whoIs(p), nil
}

// Peers lists the other members.
func (n *Node) Peers() []PeerStatus { return n.Status().Peers }

// MTU is the largest packet, in bytes, that goes to a peer without being split.
func (n *Node) MTU(string) int { return n.tun.MTU() }

// Ping sends one sealed echo of size bytes to a peer, inside the tunnel, and waits for it at most timeout.
func (n *Node) Ping(ctx context.Context, peer string, seq, size int, timeout time.Duration) PingResult {
	r := PingResult{Seq: seq, Path: PathStatus{Kind: "none"}}
	fail := func(err error) PingResult {
		text := err.Error()
		r.Error = &text
		return r
	}
	p, err := n.find(peer)
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rtt, err := n.tun.Ping(ctx, p.Control, size)
	if info, ok := n.conn.Peer(p.ID); ok {
		r.Path = n.pathStatus(info)
	}
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = errors.New("no answer in time")
		}
		return fail(err)
	}
	r.OK, r.RTTMs = true, millis(rtt)
	return r
}
