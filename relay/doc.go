// Package relay carries datagrams between members that no direct path joins. A relay server is addressed by node key
// and blind: it sees who talks to whom and how much, and ciphertext.
//
// One TCP connection, TLS 1.3 (also inside WebSocket, also through HTTP CONNECT proxies), on it frames:
//
//	type 1 | length 4, big endian, of the payload | payload
//
//	0x01 ServerHello  version 1 | flags 1 (bit 0: nonce proofs are taken) | keepalive s 2 | maxframe 4 | server id 16 |
//	                  nonce 32 | STUN port 2 (0: none)
//	0x02 ClientHello  version 1 | node id 32 | proof kind 1 | flags 1 (bit 0: home) | signature 64 | pass length 2 | pass
//	0x03 Welcome      flags 1 | address the client is seen at 16 + 2
//	0x04 Refused      code 1 | text
//	0x10 Send         dst 32 | datagram                     0x11 SendUrgent    the same, for signals
//	0x12 Recv         src 32 | datagram                     0x13 RecvUrgent
//	0x14 SendTrain    dst 32 | size 2 | datagrams           0x15 RecvTrain     src 32 | size 2 | datagrams
//	0x20 KeepAlive                                          0x21 Ping 8        0x22 Pong 8
//	0x30 Gone         node 32 | reason 1 (0 unknown here, 1 left, 2 replaced)
//	0x31 Restarting   reconnect in ms 4 | try for ms 4      0x32 Health        text
//
// All datagrams of a train have its size; only the last may be shorter. A Send frame and the Recv frame it becomes have
// one length and differ in the type and in those 32 bytes, so that a server rewrites them where they lie. Unknown types
// are skipped and counted. A length above the greatest one ends the connection before anything is allocated for it.
//
//	server ── ServerHello ─▶ client        proof kind 0: the signature covers the TLS exporter of this very session
//	server ◀─ ClientHello ── client        proof kind 1: it covers host:port, the server's certificate and its nonce,
//	server ── Welcome ─────▶ client                     for relays behind a proxy that ends TLS
//
// A client's way out and in:
//
//	Send ─▶ outbox (bounded; signals apart; drops the oldest) ─▶ writer ─▶ one write of many frames
//	reader ─▶ chunk ─▶ many datagrams where they lie ─▶ Config.Deliver … done ─▶ the chunk is used again
//
// Who owns what: a Client's reader and writer are two goroutines of Run. Send only ever touches the outbox, under its
// lock. Chunks are lent to Deliver's side until it calls done. A Pool owns the connections to all relays of a node.
//
// Read first: frame.go, then client.go, client_hello.go, client_read.go, client_write.go; url.go and dial.go for how a
// stream comes about, pool.go for many relays and the home. The server is in relay/relayserver, the queue of both in
// relay/internal/outbox, what lies between TLS and TCP in relay/internal/bulk, what every relay has to do in
// relay/relaytest.
package relay
