// Package relayserver carries datagrams between clients of package relay, which has the wire format.
//
//	reader of A: Fill ─▶ frames of one destination in a row = a run, rewritten where it lies (Send → Recv, dst → src)
//	                ─▶ place of B ─▶ B's outbox: copied once, bounded, the oldest dropped ─▶ B's writer, if none runs yet
//
// A session (one client's connection) costs one goroutine, which reads: with a small buffer while little comes, with a big
// pooled one while much does. Its writer is started by whoever fills its empty outbox, and ends when that is empty again.
// Readers never wait for writers, so a client that is slow or stuck loses its own datagrams and delays nobody; a client
// that sends more than its rate is not read for a while.
//
// A place is a node's key, and the sessions that proved to have it. The newest is the active one, which gets what is
// sent to the node. Another becomes active by sending something, less and less readily when they take turns; one that
// sends nothing is told that it was replaced, and closed.
//
// Who owns what: the registry's shards guard the places; a session is owned by its reader, but for its outbox and what is
// atomic. No lock is held while another is taken, or while anything is written.
//
// A Front listens (TLS, HTTP, STUN) and gives established streams to Server.ServeConn. Memory is a relay without one:
// its clients are joined to it by pipes.
//
// Read first: server.go, serve.go, session.go, session_forward.go, registry.go; then front.go.
package relayserver
