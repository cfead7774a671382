package dht

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	mainline "github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func randomID(r *rand.Rand) (id nodeID) {
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	return id
}

// lie is what a simulated node does.
type lie int

const (
	honest  lie = iota
	mute        // never answers
	garbage     // names nodes near the target that do not exist
	crowd       // has another port with an id near the target, and names only others of its kind
)

type simNode struct {
	contact
	lie   lie
	table []contact
}

// simDHT is a DHT of n public nodes in memory, a fifth of them liars, whose ids fit their addresses as far as they are
// honest (BEP 42).
type simDHT struct {
	rand  *rand.Rand
	nodes map[netip.AddrPort]*simNode
	list  []*simNode
}

func newSimDHT(seed uint64, n int, kinds ...lie) *simDHT {
	d := &simDHT{rand: rand.New(rand.NewPCG(seed, 1)), nodes: make(map[netip.AddrPort]*simNode)}
	for i := range n {
		ip := netip.AddrFrom4([4]byte{20 + byte(i%7), byte(d.rand.Uint32()), byte(i >> 8), byte(i)})
		node := &simNode{contact: contact{id: randomID(d.rand), addr: netip.AddrPortFrom(ip, 6881)}}
		id := krpc.ID(node.id)
		mainline.SecureNodeId(&id, ip.AsSlice())
		node.id = nodeID(id)
		if len(kinds) > 0 && i%5 == 0 {
			node.lie = kinds[i/5%len(kinds)]
		}
		d.nodes[node.addr] = node
		d.list = append(d.list, node)
	}
	for _, node := range d.list {
		for _, bits := range []int{0, 1, 2, 3, 4, 5, 6, 7} { // a routing table: some nodes for every shared prefix
			found := 0
			for _, i := range d.rand.Perm(n) {
				if other := d.list[i]; other != node && shared(node.id, other.id) == bits && found < 8 {
					node.table = append(node.table, other.contact)
					found++
				}
			}
		}
	}
	return d
}

func shared(a, b nodeID) int {
	for i := range a {
		for bit := range 8 {
			if (a[i]^b[i])&(0x80>>bit) != 0 {
				return i*8 + bit
			}
		}
	}
	return 160
}

// beside is an id very near to target, one for each address.
func beside(target nodeID, ip netip.Addr) nodeID {
	tail := ip.As4()
	copy(target[16:], tail[:])
	return target
}

// answer is what a node says to a query; ok false: nothing.
func (d *simDHT) answer(to netip.AddrPort, target nodeID) (id nodeID, named []contact, ok bool) {
	node := d.nodes[netip.AddrPortFrom(to.Addr(), 6881)]
	if node == nil || to.Port() != 6881 && node.lie != crowd {
		return id, nil, false
	}
	switch node.lie {
	case mute:
		return id, nil, false
	case garbage:
		for range maxPerAnswer {
			ip := netip.AddrFrom4([4]byte{44, byte(d.rand.Uint32()), byte(d.rand.Uint32()), byte(d.rand.Uint32())})
			named = append(named, contact{id: beside(target, ip), addr: netip.AddrPortFrom(ip, 6881)})
		}
		return node.id, named, true
	case crowd:
		for _, other := range d.list {
			if other.lie == crowd {
				ip := other.addr.Addr()
				named = append(named, contact{id: beside(target, ip), addr: netip.AddrPortFrom(ip, 6882)})
			}
		}
		d.rand.Shuffle(len(named), func(i, j int) { named[i], named[j] = named[j], named[i] })
		if to.Port() == 6882 {
			return beside(target, to.Addr()), named, true
		}
		return node.id, named, true
	case honest:
	}
	named = slices.Clone(node.table)
	slices.SortFunc(named, func(a, b contact) int { return compareDistance(target, a.id, b.id) })
	return node.id, named[:min(8, len(named))], true
}

// run searches from a few nodes, with virtual time: answers take 50 ms, and none is waited for longer than queryLimit.
func (d *simDHT) run(target nodeID) (s *search, took time.Duration) {
	type event struct {
		at time.Time
		c  *candidate
	}
	s = newSearch(target)
	for _, node := range d.list[1:4] {
		s.offer(node.contact, netip.AddrPort{})
	}
	s.router(d.list[7].addr)
	now := testTime
	var events []event
	for {
		c, over := s.next(now)
		if c != nil {
			wait := queryLimit
			if _, _, ok := d.answer(c.addr, target); ok {
				wait = 50 * time.Millisecond
			}
			events = append(events, event{now.Add(wait), c})
			continue
		}
		if over && !s.widen() {
			return s, now.Sub(testTime)
		}
		now = now.Add(10 * time.Millisecond)
		events = slices.DeleteFunc(events, func(e event) bool {
			if e.at.After(now) {
				return false
			}
			if id, named, ok := d.answer(e.c.addr, target); ok {
				e.c.token = "t"
				s.answered(e.c, id, named)
			} else {
				s.missed(e.c)
			}
			return true
		})
	}
}

func TestSearchFindsTheNearest(t *testing.T) {
	d := newSimDHT(3, 200)
	for i := range 20 {
		target := nodeID{byte(i * 13), 7}
		s, took := d.run(target)
		slices.SortFunc(d.list, func(a, b *simNode) int { return compareDistance(target, a.id, b.id) })
		holders := s.holders()
		if len(holders) != width {
			t.Fatalf("%d holders", len(holders))
		}
		for i, h := range holders {
			if h.addr != d.list[i].addr {
				t.Errorf("holder %d is not the nearest but %d", i, i)
			}
		}
		if s.total > 60 || took > 2*time.Second {
			t.Errorf("took %d queries and %v", s.total, took)
		}
	}
}

// A writer and a reader meet at some honest node although a fifth of the nodes lie, in every way at once and in each.
func TestSearchFindsAmongLiars(t *testing.T) {
	for name, kinds := range map[string][]lie{
		"silent": {mute}, "garbage": {garbage}, "crowd": {crowd}, "all": {mute, garbage, crowd},
	} {
		t.Run(name, func(t *testing.T) {
			const tries = 40
			found, queries, slowest := 0, 0, time.Duration(0)
			for seed := range uint64(tries) {
				d := newSimDHT(seed+1, 200, kinds...)
				target := randomID(d.rand)
				writer, _ := d.run(target)
				stored := make(map[netip.AddrPort]bool)
				for _, c := range writer.holders() {
					stored[c.addr] = d.nodes[c.addr] != nil && d.nodes[c.addr].lie == honest
				}
				reader, took := d.run(target)
				if slices.ContainsFunc(reader.order, func(c *candidate) bool { return c.state == answered && stored[c.addr] }) {
					found++
				} else {
					t.Errorf("seed %d: nothing found", seed+1)
				}
				queries, slowest = queries+reader.total, max(slowest, took)
			}
			t.Logf("found %d of %d, %d queries each, slowest %v", found, tries, queries/tries, slowest)
			if slowest > searchLimit {
				t.Errorf("the slowest took %v", slowest)
			}
		})
	}
}

func TestSearchIsBoundedAndKeepsToItsKindOfNetwork(t *testing.T) {
	s := newSearch(nodeID{})
	by := at("20.0.0.1:6881")
	s.offer(contact{id: nodeID{1}, addr: by}, netip.AddrPort{})
	for _, bad := range []string{
		"10.0.0.1:1", "127.0.0.1:1", "169.254.1.1:1", "100.64.0.1:1", "224.0.0.1:1", "0.0.0.0:1", "255.255.255.255:1",
		"20.0.0.2:0", "[::1]:1", "[fe80::1]:1", "[fd00::1]:1", "[ff02::1]:1", "[::]:1",
	} {
		s.offer(contact{id: nodeID{2}, addr: at(bad)}, by)
	}
	if len(s.order) != 1 {
		t.Errorf("a public node named %v", s.order[1:])
	}
	for i := range 100 {
		s.offer(contact{id: nodeID{3, byte(i)}, addr: netip.AddrPortFrom(netip.MustParseAddr("20.0.0.9"), uint16(i+1))}, by)
	}
	if len(s.order) != 1+maxPerHost {
		t.Errorf("%d nodes at one address", len(s.order)-1)
	}
	for i := range 2000 {
		ip := netip.AddrFrom4([4]byte{21, byte(i >> 8), byte(i), 1})
		s.offer(contact{id: nodeID{4, byte(i >> 8), byte(i)}, addr: netip.AddrPortFrom(ip, 1)}, by)
	}
	if len(s.order) > maxOffered {
		t.Errorf("%d nodes taken note of", len(s.order))
	}
	now, queries := testTime, 0
	for over := false; !over; now = now.Add(time.Second) {
		var c *candidate
		for c, over = s.next(now); c != nil; c, over = s.next(now) {
			queries++
			s.missed(c)
		}
	}
	if queries > maxAsked {
		t.Errorf("%d queries", queries)
	}
}
