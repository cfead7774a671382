// Package shelf keeps what is known of a set so that two nodes find out at little cost how their sets differ.
//
// An entry is a key of 32 random-looking bytes with a version. Entries stand in 256 buckets by the first byte of their
// key. Each bucket has a sum, and all of them have a root:
//
//	roots differ ─▶ 256 sums of 8 bytes ─▶ the entries of the buckets whose sums differ
//
// So what is told grows with what differs, not with what there is. It is pure and knows no messages.
package shelf
