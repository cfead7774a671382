package discovery

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

var (
	mainAddr   = netip.MustParseAddrPort("192.168.1.2:41820")
	secondAddr = netip.MustParseAddrPort("192.168.1.2:50000")
	outsideIP  = netip.MustParseAddr("198.51.100.1")
)

// natWorld is one NAT between the two sockets and some STUN servers, with a fixed latency each way.
type natWorld struct {
	mapping   Mapping
	filtering Filtering
	hairpin   bool
	blocked   bool
	servers   []*stunServer
	lose      func(n int) bool // whether the n-th packet of all is lost

	ports  map[string]uint16                   // outside port by what the mapping depends on
	owner  map[uint16]netip.AddrPort           // inside socket by outside port
	opened map[netip.AddrPort][]netip.AddrPort // whom an inside socket has sent to
	queue  []flying
	count  int
	sent   map[netip.AddrPort]int // packets by destination
}

type flying struct {
	at       time.Time
	by       Socket
	from     netip.AddrPort
	pkt      []byte
	toServer netip.AddrPort // unset: to the client
}

// stunServer has one address, or two with two ports each.
type stunServer struct {
	addr, other netip.AddrPort
	plain       bool // does not look at CHANGE-REQUEST
	tells       netip.AddrPort
	code        stun.ErrorCode
	slow        time.Duration // how much later than others it answers
}

const latency = 20 * time.Millisecond

func (w *natWorld) send(now time.Time, p Packet) {
	w.count++
	if w.sent == nil {
		w.sent = make(map[netip.AddrPort]int)
		w.ports, w.owner = make(map[string]uint16), make(map[uint16]netip.AddrPort)
		w.opened = make(map[netip.AddrPort][]netip.AddrPort)
	}
	w.sent[p.To]++
	if w.blocked || w.lose != nil && w.lose(w.count) {
		return
	}
	inside := mainAddr
	if p.By == SecondSocket {
		inside = secondAddr
	}
	w.opened[inside] = append(w.opened[inside], p.To)
	from := w.outside(inside, p.To)
	if p.To.Addr() == outsideIP {
		if w.hairpin {
			w.inbound(now.Add(latency), from, p.To, p.Data)
		}
		return
	}
	w.queue = append(w.queue, flying{at: now.Add(latency), from: from, pkt: p.Data, toServer: p.To})
}

func (w *natWorld) outside(inside, to netip.AddrPort) netip.AddrPort {
	key := inside.String()
	switch w.mapping {
	case MappingNone:
		return inside
	case MappingAddress:
		key += to.Addr().String()
	case MappingAddressAndPort:
		key += to.String()
	}
	if w.ports[key] == 0 {
		w.ports[key] = uint16(20000 + len(w.ports))
		w.owner[w.ports[key]] = inside
	}
	return netip.AddrPortFrom(outsideIP, w.ports[key])
}

// inbound lets a packet in that the filter lets in.
func (w *natWorld) inbound(at time.Time, from, to netip.AddrPort, pkt []byte) {
	inside, ok := w.owner[to.Port()]
	if w.mapping == MappingNone {
		inside, ok = to, true
	}
	open := slices.ContainsFunc(w.opened[inside], func(o netip.AddrPort) bool {
		return w.filtering == FilteringIndependent || o == from || w.filtering == FilteringAddress && o.Addr() == from.Addr()
	})
	if !ok || !open {
		return
	}
	by := MainSocket
	if inside == secondAddr {
		by = SecondSocket
	}
	w.queue = append(w.queue, flying{at: at, by: by, from: from, pkt: pkt})
}

// serve answers what arrives at any of a server's four addresses.
func (w *natWorld) serve(now time.Time, f flying) {
	for _, s := range w.servers {
		ips, ports := []netip.Addr{s.addr.Addr(), s.other.Addr()}, []uint16{s.addr.Port(), s.other.Port()}
		if !slices.Contains(ips, f.toServer.Addr()) || !slices.Contains(ports, f.toServer.Port()) {
			continue
		}
		m := new(stun.Message)
		if stun.Decode(f.pkt, m) != nil {
			continue
		}
		from := f.toServer
		if v, err := m.Get(stun.AttrChangeRequest); err == nil && !s.plain {
			change := binary.BigEndian.Uint32(v)
			if change&changeAddr != 0 {
				from = netip.AddrPortFrom(s.other.Addr(), from.Port())
			}
			if change&changePort != 0 {
				from = netip.AddrPortFrom(from.Addr(), s.other.Port())
			}
		}
		answer := reply(m.TransactionID, stun.BindingSuccess, xored(f.from.String()))
		if s.tells.IsValid() {
			answer = reply(m.TransactionID, stun.BindingSuccess, xored(f.from.String()), other(s.tells))
		}
		if s.code != 0 {
			answer = reply(m.TransactionID, stun.BindingError, s.code)
		}
		w.inbound(now.Add(latency+s.slow), from, f.from, answer)
		return
	}
}

// run plays a round to its end.
func (w *natWorld) run(t *testing.T, second bool) Report {
	t.Helper()
	now := time.Unix(1000, 0)
	var targets []Target
	for _, s := range w.servers {
		targets = append(targets, Target{"s", s.addr})
	}
	b := NewBehaviour(now, Round{Targets: targets, Local: []netip.AddrPort{mainAddr}, Second: second})
	for step := 0; step < 1000; step++ {
		for _, p := range b.Tick(now) {
			if p.By == SecondSocket && !second {
				t.Fatal("there is no second socket")
			}
			w.send(now, p)
		}
		next := b.Next()
		if next.IsZero() {
			return b.Report(now)
		}
		slices.SortStableFunc(w.queue, func(a, b flying) int { return a.at.Compare(b.at) })
		if len(w.queue) == 0 || next.Before(w.queue[0].at) {
			if !next.After(now) && step > 0 && next.Before(now) {
				t.Fatalf("next is %v ago", now.Sub(next))
			}
			now = next
			continue
		}
		f := w.queue[0]
		w.queue = w.queue[1:]
		now = f.at
		if f.toServer.IsValid() {
			w.serve(now, f)
		} else if v := b.Handle(now, f.by, f.from, f.pkt); v != Taken && v != Late {
			t.Fatalf("answer from %v: verdict %d", f.from, v)
		}
	}
	t.Fatal("the round does not end")
	return Report{}
}
