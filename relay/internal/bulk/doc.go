// Package bulk lies between TLS and TCP, and has much of one read and one write of the system where TLS would make one
// of each of its records, of 16 KiB at most.
//
//	TLS ── a record ─▶ corked: out ── Uncork ─▶ one write of many records
//	TLS ◀── what it asks for ── in ◀── one read, large while much comes
//
// Nothing waits for more: what is held back leaves with Uncork, and a read takes what is there.
//
// Who owns what: one goroutine reads, another one corks; anybody writes. Buffers are taken while there is something in
// them, so that an idle connection has none.
package bulk
