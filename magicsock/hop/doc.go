// Package hop is the member relay: a member that both of two others reach carries datagrams between them, as they are.
//
//	a                                 relay                              b
//	RelayOpen{b, nonce a}   ════════▶                                        sealed signals (magicsock/disco)
//	                        ◀════════ RelayAnswer{sid}
//	                                  RelayOffer{a, sid, nonce b} ════════▶
//	hello                   ────────▶                                        from the data sockets
//	                        ◀──────── challenge
//	answer                  ────────▶                             ◀──…──▶    b binds in the same way
//	                        ◀──────── bound
//	frame                   ────────▶ the same frame ─────────────────────▶
//
//	bind:  0xC8 | step 1 | 00 00 | sid 4 | proof 16      step 1 hello, 2 challenge, 3 answer, 4 bound
//	hint:  0xC8 | step 1 | 00 00 | sid 4                 step 5 unbound, 6 gone
//	frame: 0xC9 | 00 00 00       | sid 4 | datagram 1–1500
//
// A side proves its nonce without showing it: hello and answer carry HMACs under it. The relay's challenge is an HMAC
// under a secret of its own over the session, the side, the address and the number of the binding. So it keeps nothing
// for those who ask, an answer counts once and only from the address that the challenge went to, and the old binding is
// valid until then. No answer of the relay is longer than the question, and questions are limited per source prefix.
//
// A frame belongs to a session and comes from an address that is bound, or it is dropped; a hint tells the sender why.
// Hints are not authenticated: they make a client ask again, no more. Frames of one size that arrived as a train leave
// as a train, without being copied: a header stands before every datagram, and is the same on both legs.
//
// Table is the relay's side, Client one side of one session. Both take `now`; Table.Forward alone may be called beside
// everything else, and takes no lock. Read first: frame.go, then table.go, bind.go, client.go.
package hop
