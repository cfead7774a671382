// Package datagram has the shapes in which datagrams pass between the socket (magicsock) and the WireGuard data path
// (tunnel), which do not import each other.
//
//	socket ── []Train ──▶ data path     many datagrams of one source in one buffer, opened where they are
//	socket ◀── Peer.Send ── data path   many datagrams for one member, by whatever path is best
//
// It holds no state and does nothing.
package datagram
