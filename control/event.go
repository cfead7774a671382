package control

import (
	"net/netip"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// EventType says what happened.
type EventType int

// The events of a Mesh.
const (
	// EventSessionUp: a control session with Peer is established.
	EventSessionUp EventType = iota + 1
	// EventSessionDown: it ended, for Reason. Left tells that the peer said goodbye.
	EventSessionDown
	// EventDialFailed: no control stream to Peer could be opened.
	EventDialFailed
	// EventObserved: Peer sees our packets come from Observed; Admin tells whether it is one.
	EventObserved
	// EventIdentityCloned: another running node has our key.
	EventIdentityCloned
	// EventNameConflict: Peer wants a name that somebody has; Name is what it is called.
	EventNameConflict
	// EventInviteOverused: more joined with the invite Name than it allows.
	EventInviteOverused
	// EventRevoked: Peer was revoked. It may be ourselves.
	EventRevoked
	// EventFound: a member sent or answered an Intro at Place; Skew is how far its clock is ahead, in nanoseconds.
	EventFound
	// EventSkew: the mesh's clock is Skew nanoseconds ahead of the host's now, at least a second off from before.
	EventSkew
)

// Event is something that the node should know.
type Event struct {
	Type     EventType
	Peer     identity.PeerID
	Name     string
	Reason   string
	Left     bool
	Admin    bool
	Observed netip.AddrPort
	Place    datagram.Place
	Skew     int64
}
