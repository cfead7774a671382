// Package wire is the framing of control streams: what runs on a TCP connection between two control addresses, inside
// the tunnel.
//
//	preface, both ways: "mesh" | version 1 | kind 1 | zeros 2
//	frame:              length 4 | type 2 | CBOR       (big endian, the length counts type and CBOR)
//
// A frame is at most 1 MiB; its length is checked before anything is allocated, and memory grows with what really
// came. Reads and writes carry deadlines. Types 0 to 999 are meshnet's, from 1000 on applications'.
//
// Read first: conn.go.
package wire
