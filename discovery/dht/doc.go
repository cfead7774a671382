// Package dht has members find each other by the public BitTorrent DHT (BEP 5), for those who opt in: whoever knows a
// rendezvous secret writes and reads small sealed records there; to anybody else they are noise at random places.
//
//	secret ─┬─ slot of 2 h ─┬─ location 0…7: Ed25519 key, salt, sealing key       (location.go)
//	        │               └─ target = SHA-1(public key ‖ salt), BEP 44 mutable item
//	Policy ── when to look, when to write ──▶ Rendezvous ──▶ Node ──▶ search ──▶ nodes of the DHT
//
// A value is one bencoded string of 936 bytes, always:
//
//	nonce 24 | XChaCha20-Poly1305(896 bytes: version 1 | count 1 | records | zeros)
//	record = key 8 | time 8 (Unix s) | length 2 | data ≤ 512, newest first, then by key; key = SHA-256(PeerID)[:8]
//
// A member writes at location SHA-256(PeerID ‖ slot) mod 8. Writers merge: read, keep the others' newest records that
// fit, add the own one, write with a sequence above what was seen and compare-and-swap at each node, read again. Readers
// take the union of what the nodes give, so half a write, or two at once, is as good as one.
//
// What a location holds is only as true as its records: any holder of the secret can write there, so data is to be
// signed by its author and checked by the caller.
//
// The DHT library's server decodes packets with little care, so none reaches it that guard has not read first; its
// lookups trust nodes too much, so search does them. Of the library remain transactions, answers to others, BEP 44's
// signatures and the message formats. A node that answers nobody says so (BEP 43), and sends nothing between lookups and
// writes.
//
// Read first: location.go and value.go, policy.go, then search.go and node.go.
package dht
