// Package disco is the wire format of contact packets: how two members find out whether they reach each other at an
// address, before and beside WireGuard.
//
//	packet: type 1 | tag 8 | nonce 24 | XChaCha20-Poly1305(payload), additional data = the 33 bytes before
//	ping:   txid 12 | boot id 8 | kid 4 | psk name 8 | ledger digest 8 | flags 1 | time 8 | zeros ≥ 18
//	pong:   the same     …                                               | time 8 | address 16 | port 2 | zeros
//
// All numbers are big endian; time is in milliseconds since 1970; an IPv4 address is written in its IPv6-mapped
// form. A ping is padded to at least its pong, so nobody is answered with more than they sent.
//
// The tag names the sender to members only: HMAC(K, PeerID ‖ hour)[:8]. The key of a direction is
// HKDF(X25519(disco keys) ‖ K, "meshnet/disco/v1" ‖ sender ‖ receiver). So outsiders see neither keys nor ids, and
// the same pair looks different every hour.
//
// Signals, which one member tells another by whatever way there is, are sealed alike: signal.go.
//
// Codec only: no state, no clock. magicsock leans on it.
package disco
