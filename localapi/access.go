package localapi

import (
	"context"
	"net"
	"os/user"
	"slices"
	"strconv"
)

// group is whose members may change a node that is not theirs.
const group = "meshnet"

// caller is who is at the other end of a connection. Immutable.
type caller struct {
	known  bool // the kernel told
	uid    uint32
	groups []uint32
}

// rules say who may change the node. Immutable.
type rules struct {
	owner    uint32 // the node's user
	group    uint32 // of group meshnet
	hasGroup bool
}

// mayChange decides. Reading is free for everybody who reaches a socket. A system that tells no credentials leaves it
// to the socket's permissions, which are its owner's alone there (socketMode).
func (r rules) mayChange(c caller) bool {
	switch {
	case !c.known:
		return !tellsCredentials
	case c.uid == 0 || c.uid == r.owner:
		return true
	}
	return r.hasGroup && slices.Contains(c.groups, r.group)
}

// rulesFor looks the group up anew each time, so that it can be made while the node runs.
func rulesFor(owner uint32) rules {
	r := rules{owner: owner}
	if g, err := user.LookupGroup(group); err == nil {
		if gid, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
			r.group, r.hasGroup = uint32(gid), true
		}
	}
	return r
}

type callerKey struct{}

// withCaller is http.Server.ConnContext: who called is settled when the connection is made.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, callerOf(unix))
}

func callerIn(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}
