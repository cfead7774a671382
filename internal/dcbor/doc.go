// Package dcbor is the encoding of everything that nodes sign or send as a structure: CBOR (RFC 8949) in its core
// deterministic form (§4.2.1), checked before it is decoded.
//
// Check is a scanner of the raw bytes. It accepts only what Marshal could have written: shortest heads, definite
// lengths, maps with unique integer keys in bytewise order, valid UTF-8, no floats, no tags, null only as a value,
// depth ≤ 8, and nothing behind the value. So a value has one encoding, and what parses re-encodes identically.
//
// Map keys are small integers, none beyond 63 bits. Keys ≥ 0 are critical: a reader that does not know one must not
// act on the value. Keys < 0 may be ignored. Unmarshal reports an unknown critical key; the bytes themselves are kept
// and passed on as they came. Into arrays of bytes go byte strings of just their length.
//
// Read first: check.go, then codec.go and shape.go.
package dcbor
