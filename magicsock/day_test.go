package magicsock

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/netmap"
)

const (
	dayNodes = 20
	// dayGap is how long a pair that has a path may be without data.
	dayGap = 10 * time.Second
)

// day is a mesh over a long time, in which everything changes: NATs forget, nodes sleep, wake and move, packets get lost,
// the relay server and direct ways go and come back.
type day struct {
	t     *testing.T
	w     *sim.World
	net   *sim.Network
	relay *simRelay
	nodes []*simNode
	nats  []*sim.NAT // nil: a public address
	kinds []sim.NATKind
	calm  bool // nothing happens any more
	cut   map[[2]int]bool
	last  map[[2]int]time.Time // data of the first came at the second
	since map[[2]int]time.Time // the pair has had a path
	worst time.Duration
	moves int
}

// dayHours is how much time passes: MESHNET_SIM_HOURS, or less than one.
func dayHours() time.Duration {
	if h, err := strconv.ParseFloat(os.Getenv("MESHNET_SIM_HOURS"), 64); err == nil && h > 0 {
		return time.Duration(h * float64(time.Hour))
	}
	if raceEnabled {
		return 2 * time.Minute
	}
	return 30 * time.Minute
}

func daySeed() uint64 {
	if s, err := strconv.ParseUint(os.Getenv("MESHNET_SIM_SEED"), 10, 64); err == nil {
		return s
	}
	return simSeed
}

func newDay(t *testing.T, seed uint64) *day {
	d := &day{
		t: t, w: sim.New(seed), cut: make(map[[2]int]bool),
		last: make(map[[2]int]time.Time), since: make(map[[2]int]time.Time),
	}
	d.net = d.w.Network(sim.Link{Delay: 15 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.01})
	d.relay = &simRelay{world: d.w, delay: 40 * time.Millisecond}
	servers := stunServers(d.net)
	kinds := []sim.NATKind{sim.NATNone, sim.FullCone, sim.AddressRestricted, sim.PortRestricted, sim.Symmetric}
	for i := range dayNodes {
		outside := netip.AddrFrom4([4]byte{203, 0, byte(i), 1})
		host, nat := d.place(kinds[i%len(kinds)], outside)
		n := newSimNode(d.w, byte(i+1), host, netip.AddrPortFrom(host.Addrs()[0], 41820).String())
		d.nodes, d.nats, d.kinds = append(d.nodes, n), append(d.nats, nat), append(d.kinds, kinds[i%len(kinds)])
	}
	d.relay.join(d.nodes...)
	for i, n := range d.nodes {
		n.deaf = true
		n.taken = func(from *simNode, _, _ uint64) { d.last[[2]int{d.index(from), i}] = d.w.Now() }
		n.stun.ask(n, servers)
	}
	d.w.RunFor(time.Second)
	d.tellAll()
	return d
}

func (d *day) place(kind sim.NATKind, outside netip.Addr) (*sim.Host, *sim.NAT) {
	if kind == sim.NATNone {
		return d.net.Host(outside), nil
	}
	nat := d.net.NAT(kind, outside)
	nat.Timeout = 30 * time.Second
	return nat.Host(netip.MustParseAddr("10.0.0.2")), nat
}

func (d *day) index(n *simNode) int { return int(n.core.boot[0]) - 1 }

// tellAll gives everybody a map with where the others are found now.
func (d *day) tellAll() {
	for _, n := range d.nodes {
		var others []netmap.Peer
		for _, o := range d.nodes {
			if o != n {
				others = append(others, o.peer(o.stun.endpoints(o)...))
			}
		}
		n.know(others...)
	}
}

// pairs calls fn with the indices of all pairs that talk, both ways.
func (d *day) pairs(fn func(i, j int)) {
	for i := range dayNodes {
		for _, step := range []int{1, 5, 10} {
			j := (i + step) % dayNodes
			fn(i, j)
			fn(j, i)
		}
	}
}

// linked reports whether i can reach j now: by the relay server, or because one of them stays at a public address that
// the other knows.
func (d *day) linked(i, j int) bool {
	a, b := d.nodes[i], d.nodes[j]
	switch {
	case a.asleep || b.asleep:
		return false
	case !d.relay.down:
		return true
	case d.cut[[2]int{i, j}]:
		return false
	}
	return d.nats[i] == nil || d.nats[j] == nil
}

// judge compares what came with what had to.
func (d *day) judge() {
	now := d.w.Now()
	d.pairs(func(i, j int) {
		pair := [2]int{i, j}
		if !d.linked(i, j) {
			delete(d.since, pair)
			return
		}
		if d.since[pair].IsZero() {
			d.since[pair] = now
		}
		from := d.since[pair]
		if d.last[pair].After(from) {
			from = d.last[pair]
		}
		gap := now.Sub(from)
		if gap > d.worst {
			d.worst = gap
		}
		if gap > dayGap && gap < dayGap+2*time.Second {
			a := d.nodes[i]
			p := a.core.peers[d.nodes[j].id.ID()]
			d.t.Errorf("seed %d, %v: nothing from %d came at %d for %v\n%s", d.w.Seed(), now.Sub(sim.Epoch), i, j, gap, describe(a, now, p))
		}
	})
}

func describe(n *simNode, now time.Time, p *peer) string {
	if p == nil {
		return "no peer"
	}
	r := p.handle.route.Load()
	s := fmt.Sprintf("route %v, doubt %v", r != nil, p.doubt)
	if r != nil {
		s += fmt.Sprintf(" to %+v double %v", r.first.way, r.double)
	}
	for _, c := range n.core.info(now, p).Candidates {
		s += fmt.Sprintf("\n%+v", c)
	}
	return s
}

// disturb has something happen to one node, or to all.
func (d *day) disturb() {
	if d.calm {
		return
	}
	r := d.w.Rand()
	i := r.IntN(dayNodes)
	n := d.nodes[i]
	d.moves++
	switch what := r.IntN(8); {
	case what == 0 && d.nats[i] != nil:
		d.nats[i].Forget()
	case what == 1 && !n.asleep:
		n.asleep = true
		d.net.SetDown(n.host, true)
		d.w.After(time.Duration(r.IntN(300))*time.Second, func() {
			n.asleep = false
			d.net.SetDown(n.host, false)
			n.core.linkChanged(n.now())
			n.act()
		})
	case what <= 3 && d.nats[i] != nil: // to another NAT
		d.kinds[i] = []sim.NATKind{sim.FullCone, sim.AddressRestricted, sim.PortRestricted, sim.Symmetric}[r.IntN(4)]
		nat := d.net.NAT(d.kinds[i], netip.AddrFrom4([4]byte{100, byte(70 + d.moves>>16), byte(d.moves >> 8), byte(d.moves)}))
		nat.Timeout = 30 * time.Second
		n.host.Move(nat, netip.MustParseAddr("10.0.0.2"))
		d.nats[i] = nat
		if what == 2 { // and it notices
			n.core.linkChanged(n.now())
			n.act()
		}
	case what == 4:
		d.net.SetLink(sim.Link{Delay: time.Duration(5+r.IntN(60)) * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.05 * r.Float64()})
	case what == 5 && !d.relay.down && r.IntN(4) == 0:
		d.relay.setDown(true)
		d.w.After(time.Duration(20+r.IntN(100))*time.Second, func() { d.relay.setDown(false) })
	case what == 6:
		j := (i + []int{1, 5, 10}[r.IntN(3)]) % dayNodes
		d.cut[[2]int{i, j}], d.cut[[2]int{j, i}] = true, true
		d.net.Partition([]*sim.Host{n.host}, []*sim.Host{d.nodes[j].host})
	case what == 7:
		clear(d.cut)
		d.net.Heal()
	}
	d.w.After(time.Duration(1+r.IntN(20))*time.Second, d.disturb)
}

// TestSimDay runs a mesh of 20 nodes through NAT rebinding, sleep, moves, loss and outages: no pair that has a path stays
// without one for over 10 s. MESHNET_SIM_HOURS=24 makes it a day, MESHNET_SIM_SEED another one.
func TestSimDay(t *testing.T) {
	seed, long := daySeed(), dayHours()
	d := newDay(t, seed)
	end := d.w.Now().Add(long)
	const calm = 6 * time.Minute // longer than anybody sleeps
	d.pairs(func(i, j int) {
		d.w.After(time.Duration(d.w.Rand().IntN(1000))*time.Millisecond, func() {
			every(d.w, time.Second, end.Add(calm), func() { d.nodes[i].sendData(d.nodes[j]) })
		})
	})
	every(d.w, 2*time.Second, end.Add(calm), d.judge)
	d.w.After(10*time.Second, d.disturb)
	for d.w.Now().Before(end) && !t.Failed() {
		d.w.RunFor(10 * time.Second)
	}
	d.calm = true
	clear(d.cut)
	d.net.Heal()
	d.w.RunFor(calm)
	direct, pings, total := 0, uint64(0), d.net.Counters().Sent
	d.pairs(func(i, j int) {
		r := d.nodes[i].route(d.nodes[j])
		if r != nil && r.first.direct() {
			direct++
		} else if wantsDirect(d.kinds[i], d.kinds[j]) {
			p := d.nodes[i].core.peers[d.nodes[j].peerID]
			t.Errorf("seed %d: %d (%v) to %d (%v) is not direct\n%s", seed, i, d.kinds[i], j, d.kinds[j], describe(d.nodes[i], d.w.Now(), p))
		}
	})
	for _, n := range d.nodes {
		pings += n.core.count.pingsSent.Load()
	}
	t.Logf("seed %d, %v: %d disturbances, longest gap %v, %d of 120 directions direct at the end, %d pings among %d datagrams, %d relayed",
		seed, long, d.moves, d.worst, direct, pings, total, d.relay.sent)
}
