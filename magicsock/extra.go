package magicsock

import (
	"errors"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// extras are the sockets beside the usual ones: hundreds that live for the seconds in which ports are guessed, and the
// few of them that were met. Their numbers are never used twice within 65535.
//
//	opened ── a reader each ─▶ contact packets to core ─┬─ met: the reader ends, a leg of Receive reads it
//	                                                    └─ not met, or gone: closed
//
// Run opens, equips and closes them; packets only look them up.
type extras struct {
	byID    atomic.Pointer[map[uint16]*extra] // replaced as a whole
	legs    [maxExtra]atomic.Uint32           // which of them each leg reads
	last    uint16
	readers sync.WaitGroup
}

// extra is one of them.
type extra struct {
	id    uint16
	light *udp.Light
	full  atomic.Pointer[udp.Socket] // nil until it carries data
	leg   int                        // that reads it then
	ended chan struct{}              // closed when its reader has ended
}

// extraBuffer takes a contact packet of the full size.
const extraBuffer = 2048

// find returns a socket by its number; nil: it was closed.
func (x *extras) find(id uint16) *extra {
	all := x.byID.Load()
	if all == nil {
		return nil
	}
	return (*all)[id]
}

// change replaces what find knows.
func (x *extras) change(do func(all map[uint16]*extra)) {
	next := make(map[uint16]*extra)
	if all := x.byID.Load(); all != nil {
		maps.Copy(next, *all)
	}
	do(next)
	x.byID.Store(&next)
}

// write sends from an extra socket.
func (x *extras) write(to line, pkts [][]byte) error {
	e := x.find(to.socket)
	if e == nil {
		return errNoSocket
	}
	if s := e.full.Load(); s != nil {
		return s.Write(to.addr, to.source(), pkts)
	}
	var failed error
	for _, pkt := range pkts {
		failed = errors.Join(failed, e.light.Write(to.addr, pkt))
	}
	return failed
}

// mark tells trains which socket they came by.
func (x *extras) mark(leg int, trains []datagram.Train) {
	id := uint16(x.legs[leg].Load())
	for i := range trains {
		trains[i].From.Socket = id
	}
}

// follow carries out what core ordered. Called by Run.
func (c *Conn) follow(orders []order) {
	for _, o := range orders {
		switch {
		case o.open > 0:
			ids := c.openExtras(o.open)
			c.do(func(now time.Time, core *core) { core.opened(now, o.peer, ids) })
		case o.keep != 0:
			c.equipExtra(o.keep)
		default:
			c.closeExtras(o.close...)
		}
	}
}

// openExtras opens so many sockets, or as many as the system gives.
func (c *Conn) openExtras(n int) (ids []uint16) {
	c.extras.change(func(all map[uint16]*extra) {
		for range n {
			light, err := udp.ListenLight(udp.Config{Network: "udp4", Mark: c.cfg.Mark})
			if err != nil {
				c.log.Debug("open sockets to guess ports with", "err", err)
				return
			}
			for c.extras.last++; c.extras.last == 0 || all[c.extras.last] != nil; c.extras.last++ {
			}
			e := &extra{id: c.extras.last, light: light, ended: make(chan struct{})}
			all[e.id] = e
			ids = append(ids, e.id)
			c.extras.readers.Go(func() { c.readExtra(e) })
		}
	})
	return ids
}

// readExtra hands contact packets to core until the socket is closed, or read by a leg.
func (c *Conn) readExtra(e *extra) {
	defer close(e.ended)
	const maxErrors = 16 // about earlier datagrams
	buf := make([]byte, extraBuffer)
	for failed := 0; failed < maxErrors; {
		n, from, err := e.light.Read(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			failed++
			continue
		}
		if pkt := buf[:n]; isContact(pkt) {
			now := time.Now()
			c.doAt(now, func(core *core) {
				core.handleContact(now, line{way: way{addr: from, socket: e.id}}, pkt)
			})
		} else {
			c.core.count.foreign.Add(1)
		}
	}
}

// equipExtra has a leg read the socket from now on.
func (c *Conn) equipExtra(id uint16) {
	e := c.extras.find(id)
	if e == nil || e.full.Load() != nil {
		return
	}
	for leg := families; leg < len(c.sockets); leg++ {
		if c.sockets[leg].Load() != nil {
			continue
		}
		_ = e.light.SetReadDeadline(time.Unix(1, 0)) // a closed socket ends its reader as well
		<-e.ended
		_ = e.light.SetReadDeadline(time.Time{})
		s := e.light.Socket()
		e.leg = leg
		c.extras.legs[leg-families].Store(uint32(id))
		e.full.Store(s)
		c.sockets[leg].Store(s)
		c.swap()
		return
	}
	c.closeExtras(id)
	c.do(func(now time.Time, core *core) { core.extrasLost(now, func(lost uint16) bool { return lost == id }) })
}

// swap tells the legs that sockets changed.
func (c *Conn) swap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	close(c.swapped)
	c.swapped = make(chan struct{})
}

// closeExtras closes sockets.
func (c *Conn) closeExtras(ids ...uint16) {
	c.extras.change(func(all map[uint16]*extra) {
		for _, id := range ids {
			e := all[id]
			if e == nil {
				continue
			}
			delete(all, id)
			if e.full.Load() != nil {
				c.sockets[e.leg].Store(nil)
			}
			e.light.Close()
		}
	})
}

// endExtras closes all of them and waits for their readers.
func (c *Conn) endExtras() {
	if all := c.extras.byID.Load(); all != nil {
		for id := range *all {
			c.closeExtras(id)
		}
	}
	c.extras.readers.Wait()
}
