package ledger

import (
	"bytes"

	"github.com/meshnet/meshnet/identity"
)

// ShortID is the part of an invite's id that travels in the clear: its first 16 bytes.
type ShortID [16]byte

// Short is the short id of an invite's statement.
func Short(invite identity.Hash) ShortID { return ShortID(invite[:16]) }

// KID names a network key: the first four bytes of its commitment.
type KID [4]byte

// Commit is what genesis and rekeying publish of a network key.
func Commit(k identity.Secret) identity.Secret { return identity.Commit(k) }

// KeyID is the name of network key k.
func KeyID(k identity.Secret) KID {
	c := Commit(k)
	return KID(c[:])
}

// KnownID is the id that members put into their Intros in place of an invite's.
func KnownID(k identity.Secret, network identity.NetworkID) ShortID {
	id := identity.Derive(k[:], network, "meshnet/kid/v1")
	return ShortID(id[:])
}

// InvitePSK is the part of network key k that a token carries.
func InvitePSK(k identity.Secret, network identity.NetworkID, invite ShortID) identity.Secret {
	return identity.Derive(k[:], network, "meshnet/invite-psk/v1", invite[:])
}

// FloorPSK is the pre-shared key of a pair of members, the same from both sides.
func FloorPSK(k identity.Secret, network identity.NetworkID, a, b identity.WGKey) identity.Secret {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return identity.Derive(k[:], network, "meshnet/floor-psk/v1", a[:], b[:])
}
