// Package udp is one UDP socket of one address family, shaped for batches: a call moves many datagrams, and on Linux
// a steady stream of them allocates nothing.
//
//	ReadTrains  recvmmsg, UDP_GRO ─► 64 KiB buffers of the reader ─► lent to the caller, a train each
//	Write       runs of equal size ─► one UDP_SEGMENT message each, gathered from the caller's memory ─► sendmmsg
//
// What lies in one piece in the caller's memory is handed to the kernel in one piece: for a train of 49 that is a fifth
// less time.
//
// Every datagram is told with the address and link it arrived at (PKTINFO), and may be sent from a chosen one, so
// that answers leave by the path that asked. Datagrams carry "don't fragment", and the kernel's cached path MTU is
// ignored: finding the size that fits is the caller's work, ErrTooLarge tells when a link of this host is too small.
//
// A socket that loses segmentation offload (a network card without checksums, EIO) goes on without, for ever. A full
// send buffer holds a writer up for 10 ms at most, then the rest of its datagrams is dropped and counted. Errors that
// routers and hosts report by ICMP never surface in ReadTrains.
//
// Zones of link-local IPv6 addresses are interface names, here and in package platform, so that both spell an
// address the same way.
//
// Systems other than Linux move one datagram a system call.
//
// Read first: socket.go, then run.go, sender_linux.go, reader_linux.go.
package udp
