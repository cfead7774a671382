// Package lists finds addresses of members to ask first, in what the user names: entries, a file of entries, a DNS name.
//
//	--bootstrap       entries ────────────────┐
//	--bootstrap-file  one a line ─────────────┼─▶ look up names ─▶ draw ≤ 64 a round ─▶ ≤ 20 a second ─▶ Config.Found
//	--bootstrap-dns   _meshnet._udp.NAME      │
//	                  SRV: target, port ──────┤
//	                  TXT: a=host:port … ─────┘
//
// A round begins at once, then 1, 2, 4, 8, 16 s and a minute after the one before, for ever, while Config.Lacking says
// that too few members are connected. All entries are looked up at the same time, each with its own backoff, and what
// one gives is handed out without waiting for another. A name's addresses are asked as RFC 8305 says, IPv6 and IPv4 by
// turns, 250 ms apart; since asking is one datagram, the later ones are asked too.
//
// Lists are not trusted. Of each source a bounded number of entries is kept, looked up, and handed out in a round; all
// get their turn. Addresses that cannot be a member are never handed out: not unicast, the node's own, inside the mesh,
// and the loopback unless the user wrote it. A failure keeps what was known before.
//
// In DNS, SRV records are as in RFC 2782: of the lowest priority first, those of the next one from the next round on, by
// weight within a priority. A TXT record says "a=host:port", several with spaces between or in strings of their own;
// other keys are skipped. On systems without a resolv.conf the strings of a record arrive joined, so lists for all
// systems have one address a record, or spaces. Times to live count between 30 s and an hour.
//
// One goroutine, that of Run, owns all state and makes all calls to Config's functions; lookups are goroutines of their
// own and bring back a function to run there.
//
// Read first: lists.go, then loop.go, source.go. entry.go, file.go, answer.go, pool.go, schedule.go are pure.
package lists
