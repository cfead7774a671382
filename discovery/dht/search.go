package dht

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	mainline "github.com/anacrolix/dht/v2"
)

const (
	parallel     = 8           // queries at once, slow ones not counted
	slowAfter    = time.Second // a query without answer counts as slow
	width        = 8           // how many of the nearest nodes a search wants answers from (BEP 5's K)
	widest       = 24          // the same, once nodes were caught lying
	maxAsked     = 128         // queries of one search
	maxOffered   = 512         // nodes that one search takes note of
	maxPerAnswer = 16          // nodes taken from one answer
	maxBlame     = 4           // by how many more of those that somebody named fail than answer, and it is doubted
	maxPerHost   = 4           // nodes at one public address
)

type standing uint8

const (
	unasked standing = iota
	asked
	answered
	failed
)

// candidate is a node as one search sees it.
type candidate struct {
	contact
	router  bool           // only a way in: its id is not known, and it stores nothing
	by      netip.AddrPort // who named it; zero: known before
	proper  bool           // its id is one that its address allows (BEP 42)
	state   standing
	since   time.Time // when it was asked
	slow    bool      // and did not answer soon, for which its namer is blamed
	token   string    // of its answer, to write there
	holds   bool      // it has a value, with sequence number seq
	seq     int64     //
	swaps   bool      // it can compare and swap; see putting
	written bool      // it took the last value
}

// search is one iterative lookup (Kademlia §2.3): it says whom to ask next and when to stop. It has neither socket nor
// clock. Owned by a loop.
//
// Nodes lie. A node counts with the id that it was named with, or not at all; a public address is asked a few times at
// most; a node may only name others in networks as public as its own; those named by one whose others do not answer are
// left out, while there are others. Ids that fit their address (BEP 42) are looked for beside all, in IPv4 and in IPv6
// (BEP 32), so that a crowd of invented ids near the target does not hide those who are really there.
type search struct {
	target nodeID
	width  int
	lies   int // how often somebody was caught

	known  map[contact]bool
	hosts  map[netip.Addr]int
	order  []*candidate // by distance, routers first
	blame  map[netip.AddrPort]int
	total  int // queries so far
	answer int // answers so far
}

func newSearch(target nodeID) *search {
	return &search{
		target: target, width: width,
		known: make(map[contact]bool), hosts: make(map[netip.Addr]int), blame: make(map[netip.AddrPort]int),
	}
}

// router offers a way in.
func (s *search) router(addr netip.AddrPort) {
	if who := (contact{addr: addr}); reachOf(addr) != unusable && !s.known[who] {
		s.insert(&candidate{contact: who, router: true})
	}
}

// offer takes note of a node. by is who named it, zero for none.
func (s *search) offer(who contact, by netip.AddrPort) {
	kind := reachOf(who.addr)
	if kind == unusable || by.IsValid() && kind != global && kind != reachOf(by) {
		return
	}
	if s.known[who] || s.hosts[who.addr.Addr()] >= maxPerHost || len(s.order) >= maxOffered {
		return
	}
	if kind == global {
		s.hosts[who.addr.Addr()]++
	}
	s.insert(&candidate{contact: who, by: by, proper: mainline.NodeIdSecure(who.id, who.addr.Addr().AsSlice())})
}

func (s *search) insert(c *candidate) {
	s.known[c.contact] = true
	i, _ := slices.BinarySearchFunc(s.order, c, func(a, b *candidate) int {
		if a.router != b.router {
			if a.router {
				return -1
			}
			return 1
		}
		return cmp.Or(compareDistance(s.target, a.id, b.id), a.addr.Compare(b.addr))
	})
	s.order = slices.Insert(s.order, i, c)
}

// nearest counts answers, nearest first, until there are enough of every kind.
type nearest struct {
	width int
	any   [2]int // by family: 0 is IPv4
	fit   [2]int // those of any that are proper
}

func family(c *candidate) int {
	if c.addr.Addr().Is4() {
		return 0
	}
	return 1
}

// wants reports whether an answer by c would count.
func (n *nearest) wants(c *candidate) bool {
	f := family(c)
	return n.any[f] < n.width || c.proper && n.fit[f] < n.width
}

func (n *nearest) add(c *candidate) {
	f := family(c)
	n.any[f]++
	if c.proper {
		n.fit[f]++
	}
}

// next is whom to ask now, marked as asked; nil: nobody. over reports that the search has come to its end.
func (s *search) next(now time.Time) (ask *candidate, over bool) {
	near := nearest{width: s.width}
	busy, waiting := 0, false
	var doubtful *candidate
	for _, c := range s.order {
		wanted := c.router || near.wants(c)
		switch c.state {
		case answered:
			if wanted && !c.router {
				near.add(c)
			}
		case asked:
			if slow := now.Sub(c.since) >= slowAfter; slow && !c.slow {
				c.slow = true
				s.blame[c.by]++
			}
			if !c.slow {
				busy++
			}
			waiting = waiting || wanted && !(c.router && c.slow && s.answer > 0)
		case unasked:
			switch {
			case !wanted || ask != nil:
			case s.blame[c.by] < maxBlame:
				ask = c
			case doubtful == nil:
				doubtful = c
			}
		case failed:
		}
	}
	if ask == nil && s.answer < s.width {
		ask = doubtful
	}
	if s.total >= maxAsked {
		ask = nil
	}
	if ask == nil {
		return nil, !waiting
	}
	if busy >= parallel {
		return nil, false
	}
	ask.state, ask.since = asked, now
	s.total++
	return ask, false
}

// answered takes a node's answer: the id that it gave, and whom it named.
func (s *search) answered(c *candidate, id nodeID, named []contact) {
	if c.state != asked {
		return
	}
	if !c.router && c.id != id {
		s.caught(c)
		return
	}
	c.state = answered
	s.answer++
	s.blame[c.by]--
	if c.slow {
		s.blame[c.by]--
	}
	for _, who := range named[:min(len(named), maxPerAnswer)] {
		s.offer(who, c.addr)
	}
}

// missed takes note that a node did not answer.
func (s *search) missed(c *candidate) {
	if c.state == asked {
		c.state = failed
		if !c.slow {
			s.blame[c.by]++
		}
	}
}

// caught is for a node that lied: it does not count, and the search looks wider.
func (s *search) caught(c *candidate) {
	c.state = failed
	s.blame[c.by]++
	s.lies++
}

// widen goes on beyond the nearest nodes, if one in eight lied; it reports whether there is a point.
func (s *search) widen() bool {
	if s.lies == 0 || s.lies*8 < s.answer || s.width == widest {
		return false
	}
	s.width = widest
	return true
}

// holders are the nodes to write to: those that answered with a token, the nearest of every kind.
func (s *search) holders() []*candidate {
	near := nearest{width: width}
	var out []*candidate
	for _, c := range s.order {
		if c.state == answered && !c.router && c.token != "" && near.wants(c) {
			near.add(c)
			out = append(out, c)
		}
	}
	return out
}
