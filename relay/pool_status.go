package relay

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// ServerStatus is what a pool knows of a server.
type ServerStatus struct {
	URL       string
	Own       bool // SetServers named it; otherwise a member did
	Connected bool
	Home      bool
	Latency   time.Duration // round trip, the least of this connection; 0: not measured
	Err       error         // why it is not connected; nil: it is, or there was no reason to
	Health    string        // what it has to say to its user; empty: nothing
	Since     time.Time     // of Connected, or of its end
	Next      time.Time     // not dialled before; zero: as soon as there is a reason to
	TxBytes   uint64        // of datagrams, since the pool began
	RxBytes   uint64
	Seen      netip.AddrPort // what the server sees this node's connection come from; zero: unknown
	STUN      string         // host:port of its STUN responder; empty: none is known
}

// Status tells of all servers: homes first, the best one first, then by URL.
func (p *Pool) Status() []ServerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []ServerStatus
	for _, s := range p.roster.homes {
		all = append(all, p.statusOf(s, true))
	}
	for _, s := range p.roster.sorted() {
		if !p.roster.isHome(s) {
			all = append(all, p.statusOf(s, false))
		}
	}
	return all
}

func (p *Pool) statusOf(s *server, home bool) ServerStatus {
	status := ServerStatus{
		URL: s.text, Own: s.rank >= 0, Connected: s.phase == connected, Home: home,
		Latency: s.rtt, Err: s.err, Health: s.health, Since: s.since, TxBytes: s.tx, RxBytes: s.rx,
	}
	if s.phase == idle && s.next.After(time.Now()) {
		status.Next = s.next
	}
	client := s.client.Load()
	if client == nil {
		return status
	}
	count := client.Counters()
	status.TxBytes += count["sent_bytes"]
	status.RxBytes += count["received_bytes"]
	status.Seen = client.Seen()
	if port := client.STUNPort(); port != 0 {
		status.STUN = net.JoinHostPort(s.url.Host, strconv.Itoa(int(port)))
	}
	return status
}

// Homes are the URLs of the servers where others find this node, the best one first: what its reach should name.
func (p *Pool) Homes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.roster.announced)
}

// poolCounters are totals since NewPool.
type poolCounters struct {
	openOK, openFail atomic.Uint64
	noServer, waited atomic.Uint64
	gone             atomic.Uint64
}

// Counters are totals since NewPool, by name: of connections, and of datagrams that were dropped before they came to a
// connection. Bytes are in Status.
func (p *Pool) Counters() map[string]uint64 {
	n := &p.count
	return map[string]uint64{
		"open_ok":        n.openOK.Load(),
		"open_fail":      n.openFail.Load(),
		"gone":           n.gone.Load(),     // answers that a peer is not on a server
		"drop_no_server": n.noServer.Load(), // no server leads to the peer
		"drop_waiting":   n.waited.Load(),   // too many, or for too long, while a server was dialled
	}
}
