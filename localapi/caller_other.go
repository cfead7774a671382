//go:build !linux && !darwin

package localapi

import "net"

const tellsCredentials = false

// callerOf knows nobody here: who reaches the socket may use it.
func callerOf(*net.UnixConn) caller { return caller{} }
