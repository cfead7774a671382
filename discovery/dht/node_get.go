package dht

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/dht/v2/krpc"
)

// maxValues is how many distinct values of one location are looked at.
const maxValues = 64

// held is what a search found at a location.
type held struct {
	at      *location
	records []Record
	seq     int64 // the highest seen; 0: none
	values  map[[64]byte]bool
	answers int // nodes that answered
}

// take looks at what a node gave. It reports whether that was an attempt to deceive: a value that is not the
// location's. Malformed or wrongly sealed ones are only an insider's, who may: they are left out.
func (h *held) take(r *krpc.Return) (seq int64, has, honest bool) {
	if len(r.V) == 0 || r.Seq == nil {
		return 0, false, true
	}
	if r.K != h.at.public || *r.Seq < 0 || len(r.V) > 1000 {
		return 0, false, false
	}
	if !h.values[r.Sig] {
		if len(h.values) >= maxValues {
			return *r.Seq, true, true
		}
		if !bep44.Verify(h.at.public[:], h.at.salt, *r.Seq, r.V, r.Sig[:]) {
			return 0, false, false
		}
		h.values[r.Sig] = true
		if records, err := h.at.openValue(r.V); err == nil {
			h.records = union(h.records, records)
		}
	}
	h.seq = max(h.seq, *r.Seq)
	return *r.Seq, true, true
}

// reply is a node's answer to a query of a search.
type reply struct {
	from *candidate
	msg  krpc.Msg
	err  error
}

// getting is one search for a location's value. Owned by the goroutine in run.
type getting struct {
	node    *Node
	engine  *engine
	search  *search
	held    *held
	replies chan reply
	routers chan netip.AddrPort
	asked   sync.WaitGroup
}

// get searches for a location, within 10 s. progress is called with every answer, by the goroutine that called get;
// nil: it is not. When time is up get returns what it has; it fails when nobody answered.
func (n *Node) get(ctx context.Context, e *engine, at *location, progress func(*held)) (*search, *held, error) {
	ctx, cancel := context.WithTimeout(ctx, searchLimit)
	defer cancel()
	defer context.AfterFunc(e.stopped, cancel)()
	g := &getting{
		node: n, engine: e, search: newSearch(nodeID(at.target)),
		held:    &held{at: at, values: make(map[[64]byte]bool)},
		replies: make(chan reply, maxAsked), routers: make(chan netip.AddrPort),
	}
	g.run(ctx, progress)
	cancel()
	g.asked.Wait()
	if g.held.answers == 0 {
		return g.search, g.held, ErrNoNodes
	}
	for _, c := range g.search.order {
		if c.state == failed && !c.router {
			n.contacts.missed(c.addr)
		}
	}
	return g.search, g.held, nil
}

// run is the loop that owns the search.
func (g *getting) run(ctx context.Context, progress func(*held)) {
	near := g.node.contacts.near(g.search.target, startContacts)
	for _, c := range near {
		g.search.offer(c, netip.AddrPort{})
	}
	start := time.Now()
	var helped time.Time // when the bootstrap nodes were turned to
	if len(near) < enoughContacts {
		helped = start
		g.help(ctx)
	}
	tick := time.NewTicker(searchTick)
	defer tick.Stop()
	for ctx.Err() == nil {
		over := g.send(ctx)
		few := g.held.answers < enoughContacts
		switch {
		case helped.IsZero() && few && (over || time.Since(start) > helpAfter):
			helped = time.Now()
			g.help(ctx)
		case over && len(g.held.records) == 0 && g.search.widen():
			continue
		case over && (helped.IsZero() || g.routers == nil || g.held.answers > 0 && time.Since(helped) > slowAfter):
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case addr, ok := <-g.routers:
			if !ok {
				g.routers = nil
				continue
			}
			g.search.router(addr)
		case r := <-g.replies:
			if g.take(r) && progress != nil {
				progress(g.held)
			}
		}
	}
}

// send asks everybody who is to be asked now. It reports whether the search is over.
func (g *getting) send(ctx context.Context) (over bool) {
	for {
		c, over := g.search.next(time.Now())
		if c == nil {
			return over
		}
		if g.node.limit.Wait(ctx) != nil {
			return false
		}
		g.asked.Go(func() {
			msg, err := g.node.ask(ctx, g.engine, c.addr, method(c), getArgs(g.search.target, c))
			g.replies <- reply{from: c, msg: msg, err: err} // holds as many as there are queries
		})
	}
}

// method is how a node is asked: those that are only a way in need not know of items.
func method(c *candidate) string {
	if c.router {
		return "find_node"
	}
	return "get"
}

// getArgs asks for nodes of the asked one's family, which keeps an answer with a value within a packet.
func getArgs(target nodeID, c *candidate) krpc.MsgArgs {
	want := krpc.WantNodes6
	if c.addr.Addr().Is4() {
		want = krpc.WantNodes
	}
	return krpc.MsgArgs{Target: krpc.ID(target), Want: []krpc.Want{want}}
}

// help asks the bootstrap nodes too.
func (g *getting) help(ctx context.Context) {
	routers := g.routers
	g.asked.Go(func() {
		defer close(routers)
		g.node.resolve(ctx, func(addr netip.AddrPort) {
			select {
			case routers <- addr:
			case <-ctx.Done():
			}
		})
	})
}

// take works in what one node answered, and reports whether it did.
func (g *getting) take(r reply) bool {
	c := r.from
	if r.err != nil || r.msg.R == nil {
		g.search.missed(c)
		return false
	}
	g.held.answers++
	if !c.router {
		if r.msg.R.Token != nil {
			c.token = *r.msg.R.Token
		}
		seq, has, honest := g.held.take(r.msg.R)
		if !honest {
			g.search.caught(c)
			return true
		}
		c.seq, c.holds, c.swaps = seq, has, r.msg.ClientId != ""
	}
	if c.router { // it may store, too
		g.search.offer(contact{id: nodeID(r.msg.R.ID), addr: c.addr}, netip.AddrPort{})
	}
	g.search.answered(c, nodeID(r.msg.R.ID), named(r.msg.R))
	if c.state == answered && !c.router {
		g.node.contacts.answered(c.contact, time.Now())
	}
	return true
}

// named is whom an answer names.
func named(r *krpc.Return) []contact {
	four := contactsOf(r.Nodes[:min(len(r.Nodes), maxPerAnswer)])
	return append(four, contactsOf(r.Nodes6[:min(len(r.Nodes6), maxPerAnswer)])...)
}

// contactsOf leaves out those with impossible addresses.
func contactsOf(list []krpc.NodeInfo) []contact {
	var out []contact
	for _, info := range list {
		ip, ok := netip.AddrFromSlice(info.Addr.IP)
		if ok && info.Addr.Port > 0 && info.Addr.Port < 1<<16 {
			out = append(out, contact{id: nodeID(info.ID), addr: netip.AddrPortFrom(ip.Unmap(), uint16(info.Addr.Port))})
		}
	}
	return out
}
