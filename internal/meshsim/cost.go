package meshsim

import "time"

// What a session costs on the wire, in bytes: TCP over IPv6 inside WireGuard over UDP over IPv4.
const (
	segment = 1280 - 40 - 32 // payload of a TCP segment with timestamps
	// packet is what a segment has around its payload: IPv6 40, TCP 32, WireGuard 32 and half of what it pads to 16,
	// UDP 8, IPv4 20.
	packet = 40 + 32 + 32 + 8 + 8 + 20
	// empty is a WireGuard packet without content.
	empty = 32 + 8 + 20
	// handshake is one side's share of a WireGuard handshake: 148, 92 and 32 bytes, each in UDP over IPv4.
	handshake = (148 + 92 + 32 + 3*28) / 2
	rekey     = 2 * time.Minute
	// contact is one side's share of finding a path before: a small ping and one of the full size, both answered, each
	// way.
	contact = 2*(144+28) + 2*(1312+28)
	// opening and closing are one side's share of SYN, SYN-ACK, ACK and prefaces, and of two FINs with their ACKs.
	opening = 5 * packet / 2
	closing = 2 * packet
	// introduction is an Intro, sent twice for its cookie, and its Welcome.
	introduction = 3*(1232+28) + 32 + 28
)

// burst is what sending some bytes at once costs, and what acknowledging them does.
func burst(bytes int) (there, back int) {
	segments := (bytes + segment - 1) / segment
	return bytes + segments*packet, (segments + 1) / 2 * packet
}
