package tunnel

import (
	"io"
	"sync"

	"gvisor.dev/gvisor/pkg/log"
)

// quietStack keeps the netstack module's own logger, which is one for the whole process, off standard error: what it
// tells of single packets is counted elsewhere, and a member could fill the log with it.
var quietStack = sync.OnceFunc(func() {
	log.SetTarget(&log.Writer{Next: io.Discard})
})
