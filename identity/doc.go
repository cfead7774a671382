// Package identity is who a node is: one 32-byte seed and everything made from it.
//
//	seed ─┬─ Ed25519 (RFC 8032)                         node key, its public half is the PeerID
//	      ├─ HKDF "meshnet/wireguard-key/v1" ‖ 0 ‖ gen  X25519 WireGuard key
//	      └─ HKDF "meshnet/disco-key/v1" ‖ 0 ‖ gen      X25519 disco key
//
// The seed is the Ed25519 private key of RFC 8032 itself, so that the PEM file a node keeps (PKCS#8, RFC 8410)
// is an honest key: OpenSSL prints the same public key that the PeerID spells in base58.
//
// Every signature is bound to a purpose and a network (see Sign); a signature made for one purpose never
// verifies for another. Secrets redact themselves in logs.
//
// Nothing here knows of sockets, membership or time. Everything above leans on it.
//
// Read first: peerid.go, then identity.go, sign.go, keystore.go.
package identity
