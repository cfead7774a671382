package dht

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	maxContacts     = 200
	contactSize     = 20 + 16 + 2
	contactsVersion = 1
	// goodFor is how long a node counts as good after an answer (BEP 5).
	goodFor = 15 * time.Minute
	// maxMisses is how often in a row a node may fail to answer, while others do, before it is forgotten.
	maxMisses = 3
)

var errBadContacts = errors.New("saved DHT nodes are malformed")

// nodeID is a node's or an item's place in the DHT.
type nodeID [20]byte

// compareDistance orders by XOR distance from target (Kademlia §2.1).
func compareDistance(target, a, b nodeID) int {
	for i := range target {
		if x, y := a[i]^target[i], b[i]^target[i]; x != y {
			return cmp.Compare(x, y)
		}
	}
	return 0
}

// contact is a node of the DHT.
type contact struct {
	id   nodeID
	addr netip.AddrPort
}

type known struct {
	contact
	answered time.Time // zero: not since this start
	misses   int
}

// contacts are nodes that answered, for the next search to begin with. Guarded by mu.
type contacts struct {
	mu  sync.Mutex
	all map[netip.AddrPort]*known
}

// answered notes that a node answered a query of ours. When full, the one that has been silent for longest goes.
func (c *contacts) answered(who contact, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[netip.AddrPort]*known)
	}
	if c.all[who.addr] == nil && len(c.all) >= maxContacts {
		var oldest *known
		for _, k := range c.all {
			if oldest == nil || k.answered.Before(oldest.answered) {
				oldest = k
			}
		}
		delete(c.all, oldest.addr)
	}
	c.all[who.addr] = &known{contact: who, answered: now}
}

// missed notes that a node did not answer while others did.
func (c *contacts) missed(addr netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.all[addr]
	if k == nil {
		return
	}
	k.misses++
	if k.misses >= maxMisses {
		delete(c.all, addr)
	}
}

// near are the n nodes nearest to target.
func (c *contacts) near(target nodeID, n int) []contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	near := make([]contact, 0, len(c.all))
	for _, k := range c.all {
		near = append(near, k.contact)
	}
	slices.SortFunc(near, func(a, b contact) int {
		return cmp.Or(compareDistance(target, a.id, b.id), a.addr.Compare(b.addr))
	})
	return near[:min(n, len(near))]
}

// count is how many nodes are known, and how many of them answered lately.
func (c *contacts) count(now time.Time) (nodes, good int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.all {
		if !k.answered.IsZero() && now.Sub(k.answered) < goodFor && k.misses == 0 {
			good++
		}
	}
	return len(c.all), good
}

// save encodes: version 1 | per node, those that answered last first: id 20 | address 16 | port 2.
func (c *contacts) save() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*known, 0, len(c.all))
	for _, k := range c.all {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *known) int {
		return cmp.Or(b.answered.Compare(a.answered), a.addr.Compare(b.addr))
	})
	out := append(make([]byte, 0, 1+len(all)*contactSize), contactsVersion)
	for _, k := range all {
		ip := k.addr.Addr().As16()
		out = append(append(out, k.id[:]...), ip[:]...)
		out = binary.BigEndian.AppendUint16(out, k.addr.Port())
	}
	return out
}

// load takes what save made. Entries beyond 200, twice or with an impossible address are left out.
func (c *contacts) load(b []byte) error {
	if len(b) == 0 || b[0] != contactsVersion || (len(b)-1)%contactSize != 0 {
		return errBadContacts
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[netip.AddrPort]*known)
	}
	for e := range slices.Chunk(b[1:], contactSize) {
		ip := netip.AddrFrom16([16]byte(e[20:36])).Unmap()
		addr := netip.AddrPortFrom(ip, binary.BigEndian.Uint16(e[36:]))
		if reachOf(addr) != unusable && len(c.all) < maxContacts {
			c.all[addr] = &known{contact: contact{id: nodeID(e[:20]), addr: addr}}
		}
	}
	return nil
}

// reach is how far an address means the same place.
type reach uint8

const (
	unusable  reach = iota // nobody can be there
	loopback               // this machine
	linkLocal              // this link
	private                // this site
	global                 //
)

// reachOf tells what kind of network an address belongs to.
func reachOf(addr netip.AddrPort) reach {
	ip := addr.Addr()
	switch {
	case addr.Port() == 0 || !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast():
		return unusable
	case ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240):
		return unusable
	case ip.IsLoopback():
		return loopback
	case ip.IsLinkLocalUnicast():
		return linkLocal
	case ip.IsPrivate() || sharedSpace.Contains(ip):
		return private
	}
	return global
}

// sharedSpace is the carriers' own address space (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")
