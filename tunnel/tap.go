package tunnel

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
)

// tap is the tun.Device that the WireGuard device sees. It stands between it and the OS TUN, the netstack and the lot.
//
// Read has one caller at a time; Write has one per peer. Neither calls the device.
type tap struct {
	os       tun.Device // nil in userspace mode
	pumped   bool       // os cannot be interrupted by a deadline (Windows): pump reads it
	mtu      int
	counters *counters
	queue    *queue
	lot      *lot
	inject   func(pkt []byte)         // to the netstack; copies
	want     func(p *peer, now int64) // asks for contact; never blocks
	self     atomic.Pointer[self]
	table    atomic.Pointer[table]
	events   chan tun.Event // never an event: the tunnel is up whatever the OS thinks of its interface
	closing  sync.Once

	// Owned by the reader of the OS TUN.
	turns int
	icmp  icmpWriter
}

// newTap wraps dev, which may be nil.
func newTap(dev tun.Device, mtu int, c *counters) *tap {
	t := &tap{os: dev, mtu: mtu, counters: c, events: make(chan tun.Event)}
	var deadline func(time.Time) error
	if dev != nil {
		if f := dev.File(); f != nil && f.SetReadDeadline(time.Time{}) == nil {
			deadline = f.SetReadDeadline
		} else {
			t.pumped = true
		}
	}
	t.queue = newQueue(deadline)
	t.lot = newLot(c, t.queue)
	t.table.Store(&table{})
	return t
}

// Read implements tun.Device: the next packets for members. Entries of size 0 were consumed here.
func (t *tap) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		if t.turns < fairTurns {
			if n := t.queue.take(bufs, sizes, offset); n > 0 {
				t.turns++
				return n, nil
			}
		}
		if t.os == nil || t.pumped {
			t.turns = 0
			if !t.queue.wait() {
				return 0, os.ErrClosed
			}
			continue
		}
		if t.turns >= fairTurns {
			t.queue.yield()
		}
		t.turns = 0
		n, err := t.os.Read(bufs, sizes, offset)
		kept := t.sortOS(bufs[:n], sizes, offset)
		if fatal := t.readError(err); fatal != nil {
			return 0, fatal
		}
		if kept > 0 {
			return n, nil
		}
	}
}

// readError tells the errors that end reading from those of a single packet: the latter do not come from the file. The
// device would shut down on any of them.
func (t *tap) readError(err error) error {
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, os.ErrClosed):
		return err
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok || t.pumped {
		return err
	}
	t.counters.add(outRead)
	return nil
}

// sortOS keeps what the device shall send and sets the other sizes to 0. The buffers stay where they are: the device
// pairs them with its own by index.
func (t *tap) sortOS(bufs [][]byte, sizes []int, offset int) (kept int) {
	for i := range bufs {
		if sizes[i] == 0 {
			continue
		}
		if t.fromOS(bufs[i][offset : offset+sizes[i]]) {
			kept++
		} else {
			sizes[i] = 0
		}
	}
	return kept
}

// pump reads an OS TUN that has no deadlines into the queue. It ends when the TUN is closed.
func (t *tap) pump() error {
	batch := t.os.BatchSize()
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	for {
		n, err := t.os.Read(bufs, sizes, headroom)
		t.sortOS(bufs[:n], sizes, headroom)
		for i := range n {
			if sizes[i] > 0 {
				t.send(bufs[i][headroom : headroom+sizes[i]])
			}
		}
		if err := t.readError(err); err != nil {
			t.queue.close()
			return err
		}
	}
}

// send queues a copy of pkt for the device.
func (t *tap) send(pkt []byte) {
	p := copyPacket(pkt)
	if !t.queue.push(p) {
		t.counters.add(outQueueFull)
		p.free()
	}
}

// watch drains the OS TUN's events, or its listener would block for ever on the first that nobody takes.
func (t *tap) watch() {
	for range t.os.Events() {
	}
}

// run owns the goroutines that an OS TUN needs; they end when it is closed.
func (t *tap) run() {
	if t.os == nil {
		return
	}
	var wg sync.WaitGroup
	if t.pumped {
		wg.Go(func() { _ = t.pump() })
	}
	wg.Go(t.watch)
	wg.Wait()
}

// File implements tun.Device. The device does not use it.
func (t *tap) File() *os.File { return nil }

// MTU implements tun.Device.
func (t *tap) MTU() (int, error) { return t.mtu, nil }

// Name implements tun.Device.
func (t *tap) Name() (string, error) {
	if t.os == nil {
		return "", nil
	}
	return t.os.Name()
}

// Events implements tun.Device.
func (t *tap) Events() <-chan tun.Event { return t.events }

// BatchSize implements tun.Device.
func (t *tap) BatchSize() int { return conn.IdealBatchSize }

// Close implements tun.Device.
func (t *tap) Close() (err error) {
	t.closing.Do(func() {
		t.queue.close()
		if t.os != nil {
			err = t.os.Close()
		}
		close(t.events)
	})
	return err
}
