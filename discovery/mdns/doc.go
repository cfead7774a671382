// Package mdns has members on one LAN find each other without anybody's server: DNS-SD (RFC 6763) over multicast DNS
// (RFC 6762), service type _meshnet._udp.local.
//
//	Service.Run ─ loop ─▶ core ─┬─ faces: announce, answer (answer.go), ask (browse.go)
//	   ▲  ▲                     └─ cache: who was heard ─▶ Config.Found
//	   │  └── link: one socket for IPv4, one for IPv6 (UDP 5353, shared with others such as avahi-daemon)
//	   └───── every 10 s and on Changed: interfaces, port, tag
//
// What is on the wire, for each interface of its own:
//
//	_meshnet._udp.local           PTR   <name>._meshnet._udp.local      120 s
//	<name>._meshnet._udp.local    SRV   0 0 <port> <name>.local         120 s
//	                              TXT   "v=1" "t=<16 hex digits>"       120 s
//	<name>.local                  A, AAAA of that interface             120 s
//
// Nobody outside the network may name or follow a node. The name is 64 random bits in hex, another one on each interface,
// and a new one every hour and when the interface loses an address. t is the network's tag of the hour, which only
// members can compute; nothing else is told. With names like these there is no probing for conflicts beforehand
// (RFC 6762 §8.1); a record that contradicts one of ours has us take another name.
//
// Everything that comes in is foreign. What does not name the service costs a search for a few bytes; messages above a
// budget are dropped; a message is looked at for its first 64 records; what is remembered is bounded, and shared fairly
// among senders. Networks are told apart by the tag, before any cryptography. An address is believed only where it belongs
// to the link or to a private range, so that no record can direct our datagrams at somebody on the internet. A message
// that tells of an instance has to hold all of its records, as ours do: they are not gathered from several.
//
// Questions are asked by multicast only: an answer sent to the port alone reaches whichever program the system picks of
// those that share it. For the same reason the IPv4 socket is bound to the group where the system lets it.
//
// Ownership: the loop owns core and all below it. Readers of sockets hand datagrams over a bounded channel.
//
// Read first: service.go, core.go, then answer.go and browse.go.
package mdns
