// Package guess plans how a node behind a hard NAT (a mapping per destination, to ports that nobody can know) and one
// behind an easy NAT that filters by port come to a direct path all the same: by the birthday paradox.
//
//	hard side: Fan                                     easy side: Spray
//	256 temporary sockets, each pings  ───────────▶    its one mapped address        (that NAT lets nothing in yet)
//	  256 of its NAT's ports now lead to a socket
//	                                   ◀───────────    pings up to 1024 random ports of the hard side's address
//	  a ping that meets one of the 256 ports arrives there, and the answer comes back:
//	  the easy side's NAT has seen that port go out
//
// With 256 of 64512 ports open, n pings to different ports meet one with 1 - ∏(64256-i)/(64512-i): 50 % at 174, 90 % at
// 577, 98.4 % at 1024. Many NATs give ports out in order; so the first pings go to those after the ports that the hard
// side knows of itself.
//
// This is a lot of packets to an address that did not answer yet, so it is bounded on every side (Limits, and the
// constants beside Spray and Fan): it takes an authenticated call-me-maybe of a member that named the address itself,
// goes to one address, stops at the first answer, and is tried rarely.
//
// Everything here is pure: it takes now, and says what is to be sent. Read first: spray.go, fan.go, limits.go.
package guess
