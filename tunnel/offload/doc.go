// Package offload speaks the virtio-net header of a Linux TUN: it cuts what the kernel hands out uncut into ordinary IP
// packets, and puts the packets of a flow together before the kernel gets them, so that both sides of the interface
// pay per 64 KiB and not per packet.
//
// Every read and write of a TUN with IFF_VNET_HDR is
//
//	 0      1          2         4          6            8              10
//	+------+----------+---------+----------+------------+--------------+-----------------+
//	| flags| gso_type | hdr_len | gso_size | csum_start | csum_offset  | IP packet ...   |
//	+------+----------+---------+----------+------------+--------------+-----------------+
//
// (struct virtio_net_hdr of linux/virtio_net.h, native byte order). With a gso_type the packet is a superpacket: one
// IP and TCP or UDP header and the payload of many segments, gso_size bytes each. With NEEDS_CSUM the checksum field
// holds the sum of the pseudo header only.
//
//	TUN ─ Queue.ReadBatch ─ Split ─ one packet at a time into the caller's slots ─ seal ─ socket
//	TUN ─ writev ────────── Join ── packets as they were opened, in their buffers ─ open ─ socket
//
// The API:
//
//	const HeaderLen, MaxRead
//	type Offloads struct{ TCP, UDP bool }
//	func Header(buf []byte) []byte            the IP packet of a read, for the caller's judgement, once a superpacket
//	func Super(buf []byte) bool               whether the read is a superpacket
//	func (*Split) Start(buf []byte) error     begin with a read: ErrMalformed, ErrUnsupported
//	func (*Split) Size() int                  bytes of the next packet, 0 when there is none
//	func (*Split) Fill(dst []byte) int        write the next packet, Size bytes
//	func NewJoin(write func(packet [][]byte) error, o Offloads) *Join
//	func (*Join) Add(pkt []byte)              a packet; its buffer belongs to the Join until Flush
//	func (*Join) Flush() error                all is written; os.ErrClosed
//	func (*Join) Stats() Stats                until the last Flush, from any goroutine
//	ErrRefused, ErrDown, ErrFull              what write tells a Join
//
// and on Linux:
//
//	func NewQueue(f *os.File) (*Queue, error) a TUN's file with IFF_VNET_HDR; turns the offloads on
//	func (*Queue) Offloads() Offloads
//	func (*Queue) ReadBatch(handle func(buf []byte) bool) error
//	func (*Queue) NewJoin() *Join             one for each goroutine that writes
//	func SetOffloads(fd int) (Offloads, error)
//
// Who owns what: a Split and a Join belong to one goroutine each, and so does a Queue's ReadBatch. The Joins of a Queue
// may run at the same time. The file stays the caller's: Stop ends ReadBatch, then Close both directions.
//
// Read first: header.go, split.go, then join.go, join_segment.go, queue_linux.go.
package offload
