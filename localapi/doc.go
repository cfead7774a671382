// Package localapi lets programs on the same machine look at a running node and change it: HTTP with JSON over unix
// sockets. It serves a node and is the client that the command line uses.
//
//	GET  /v1/status                                  meshnet.Status
//	GET  /v1/members                                 []meshnet.MemberStatus
//	POST /v1/members/revoke  {peer}             *    {}
//	POST /v1/members/approve {peer,what,allow}  *    {}
//	GET  /v1/invites                                 []meshnet.InviteStatus
//	POST /v1/invites         {expires,uses,tags} *   meshnet.Invitation
//	POST /v1/invites/revoke  {id}               *    {}
//	GET  /v1/whois?addr=                             meshnet.WhoIs
//	GET  /v1/lookup?peer=                            meshnet.WhoIs
//	POST /v1/ping            {peer,seq,size,timeout} meshnet.PingResult
//	POST /v1/netcheck                                meshnet.Netcheck
//	GET  /v1/why?peer=                               meshnet.Why
//	GET  /v1/metrics                                 Prometheus text
//	GET  /v1/key                                     Key
//	GET  /v1/events                                  meshnet.Event, one per line, until the node stops
//	POST /v1/down                               *    Down; the connection stays open until the node is gone
//
// An error is {"error":{"code","text","hint"}}; the code lets the client rebuild the sentinel it came from (error.go).
//
// Everybody who reaches a socket may read. What is marked * changes the node: root, the node's own user and the
// members of group meshnet may do that, told by the credentials that the kernel gives of the other end (access.go).
// Where it gives none, the socket is its owner's alone.
//
// A socket that a killed node left is replaced, one on which a node answers never. One whose path is too long for the
// system lies in a short private folder instead, and in its place a text file names it (socket.go).
//
// Read first: server.go, then handlers.go, socket.go; client.go and locate.go for the other end.
package localapi
