package ledger

import "errors"

// Errors of parsers and of the Add methods. Input that is refused changes nothing.
var (
	ErrMalformed      = errors.New("malformed")
	ErrTooLarge       = errors.New("too large")
	ErrNewer          = errors.New("made by a newer version")
	ErrForeignNetwork = errors.New("belongs to another network")
	ErrBadSignature   = errors.New("bad signature")
	ErrClockTooHigh   = errors.New("clock too high")
	ErrVoid           = errors.New("clock or parents do not fit")
	ErrFull           = errors.New("too many statements of non-admins")
)

// Errors of making statements, acceptances and proofs.
var (
	ErrName          = errors.New("not a name of letters, digits and hyphens, up to 63 bytes")
	ErrPrefix4       = errors.New("not an IPv4 prefix of /8 to /20")
	ErrAddress       = errors.New("address outside the network's usable range")
	ErrOffer         = errors.New("not an offer: a relay server's https URL, a route's prefix, or an exit")
	ErrNotAdmin      = errors.New("not an admin of this network")
	ErrUnknownMember = errors.New("unknown member")
	ErrUnknownInvite = errors.New("unknown invite")
	ErrUnknownAdmit  = errors.New("unknown admit")
	ErrFounder       = errors.New("the founder cannot be revoked")
	ErrProof         = errors.New("proof of membership does not hold")
)

// Errors of CheckAdmit. The first four are the words of a refusal.
var (
	ErrExpired     = errors.New("expired")
	ErrUsed        = errors.New("used")
	ErrRevoked     = errors.New("revoked")
	ErrUnsynced    = errors.New("unsynced")
	ErrKeyConflict = errors.New("key belongs to another member")
)

// Errors of ParseToken.
var (
	ErrTokenFormat   = errors.New("not a token")
	ErrTokenChecksum = errors.New("token truncated or altered")
	ErrTokenVersion  = errors.New("token made by a newer version")
)
