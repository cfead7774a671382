// Package ring is how members find each other once they are too many for a session of everybody with everybody: who keeps
// sessions with whom, and how signals cross a network over them. It has no sockets, no clock and no goroutines.
//
// Up to 32 members everybody keeps a session with everybody. From 33 on, until there are 28 again, each has a place on a
// ring of 2^128 positions and keeps sessions with its two nearest on either side and with one finger for each doubling of
// distance (18 sessions at most among 10 000, and those that others want with it):
//
//	position = SHA-256(network ‖ PeerID), the first 16 bytes
//
//	    P2  P1 [self] S1  S2 ····· F ··········· F ························ F ·· ─▶ up, and round
//	                  2^k distance: 1            2                          4
//
// A signal goes from session to session, each time to the member nearest before its target, so it halves what is left
// and never goes round. Sessions lead both ways, so the ring can be crossed downwards as well: to the nearest after the
// target. That is the second way of a signal whose first came to a dead end or stays without effect. It begins with a
// session drawn at random. In a full mesh the two ways are two members that may have a session with the target.
//
//	origin ── signal ──▶ hop ── signal ──▶ hop ── signal ──▶ target ─▶ Deliver
//	       ◀── taken ──      ◀── taken ──      ◀── taken ──
//	       ◀─ no-route ──    ◀─ no-route ──  from who has no session nearer to the target
//
// Each hop says at once that it took a signal. A neighbour that stays silent for 300 ms is passed over for the next
// nearest, up to three in all: sessions to members that died break later than that. no-route goes back the way
// that the signal came. Both count only from the neighbour that was given the signal, so a liar costs what goes its way.
//
// Frames are deterministic CBOR maps (see dcbor), made anew by each hop; only body is signed, by the origin, with purpose
// ring. Ways are 0, upwards, and 1, downwards; TTL is from 20 down to 1.
//
//	signal    {0: 1, 1: body, 2: signature 64, 3: ttl, 4: way}
//	taken     {0: 2, 1: id 16, 2: origin 32, 3: way}
//	no-route  {0: 3, 1: id 16, 2: origin 32, 3: way}
//	body      {0: id 16, 1: origin 32, 2: target 32, 3: type, 4: time, ms, 5: payload, 1 to 1280, or absent}
//	types     1 call: a packet sealed for the target · 2 where-is: empty or origin's reach · 3 here-is: origin's reach
//
// Types and critical keys of a body that a hop does not know it carries all the same; their target does not act on them.
//
// Every hop verifies what it passes on. Quotas come before the signature: 100 signals a second of a neighbour, 10 of a
// neighbour and an origin, and about 200 checks in all, of which each session has a share. A signal's time is within 2
// minutes of the mesh's, its id is remembered for 5. Who passes on what is malformed or forged did not look itself: it is
// not heard for 10 s.
//
// Read first: ring.go and wanted.go for the topology; router.go, router_handle.go, router_choose.go for signals.
package ring
