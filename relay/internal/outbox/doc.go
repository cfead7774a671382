// Package outbox is the queue before a relay connection: whole frames, bounded, never waited for.
//
//	Append ─▶ lane: signals ─┐                    ┌─▶ Block ─▶ one TLS record
//	Append ─▶ lane: data ────┴─ flows, in turns ──┴─▶ Block ─▶ one TLS record
//
// Each lane has its own bounds, in bytes and in frames. Who would pass one pushes out the oldest frames of the flow that
// holds most of the lane; so whoever sends much loses first, and what is left is fresh. Flows are senders by a hash
// (stochastic fairness queueing, McKenney 1990), and blocks leave in turns between them.
//
// Frames are copied once, into blocks of a TLS record's size, which are pooled; an empty Box has none.
//
// It knows a frame's header (package relay): type 1, length 4.
package outbox
