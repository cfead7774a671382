package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// hop is a cable that goes through the lab's own process: a TAP device at each end, and in between two goroutines for
// each direction, one that reads frames and decides about them and one that delivers them when they are due. The
// kernel cuts large segments before it hands them to a TAP, so a frame is never larger than the MTU.
//
//	TAP ─ read ─ lane ─▶ queue ─ wait, write ─▶ TAP
//
// Timers are about a millisecond late.
type hop struct {
	ends  [2]*os.File
	lines [2]atomic.Pointer[lane] // by the end that frames come from; the next lane after a change

	closing sync.Once
	closed  chan struct{}
	ended   sync.WaitGroup
}

// frame is one under way.
type frame struct {
	due  time.Time
	data []byte
}

// newHop makes the devices, named as given, and starts to carry frames.
func newHop(hosts [2]*Host, names [2]string, line Line) (*hop, error) {
	p := &hop{closed: make(chan struct{})}
	for i, h := range hosts {
		err := h.Do(func() (err error) {
			p.ends[i], err = openTAP(names[i])
			return err
		})
		if err != nil {
			return nil, errors.Join(err, p.closeEnds())
		}
	}
	p.set(line)
	for i := range p.ends {
		queue := make(chan frame, lineFrames) // closed by read
		p.ended.Go(func() { p.read(i, queue) })
		p.ended.Go(func() { p.deliver(1-i, queue) })
	}
	return p, nil
}

func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open TAP %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// set changes what happens to frames that are read from now on.
func (p *hop) set(line Line) {
	for i := range p.lines {
		p.lines[i].Store(newLane(line, uint64(i)))
	}
}

// read takes the frames of an end, until it is closed.
func (p *hop) read(from int, queue chan<- frame) {
	defer close(queue)
	buf := make([]byte, 1<<16)
	var last time.Time
	for {
		n, err := p.ends[from].Read(buf)
		if err != nil { // closed, or the device is gone; one that is down has no frames
			return
		}
		at, ok := p.lines[from].Load().admit(time.Now(), n)
		if !ok {
			continue
		}
		if at.Before(last) { // of a line before a change
			at = last
		}
		last = at
		select {
		case queue <- frame{due: at, data: bytes.Clone(buf[:n])}:
		default: // lineFrames are under way already
		}
	}
}

// deliver writes frames to an end when they are due, until the other one is closed.
func (p *hop) deliver(to int, queue <-chan frame) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for f := range queue {
		if wait := time.Until(f.due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-p.closed:
				return
			}
		}
		// What cannot be delivered, to a device that is down or gone, is lost as on a real cable.
		_, _ = p.ends[to].Write(f.data)
	}
}

// carrier plugs the cable in at an end, or pulls it out.
func (p *hop) carrier(end int, on bool) error {
	value := 0
	if on {
		value = 1
	}
	rc, err := p.ends[end].SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = rc.Control(func(fd uintptr) { set = unix.IoctlSetPointerInt(int(fd), unix.TUNSETCARRIER, value) })
	return errors.Join(err, set)
}

// Close takes the devices away and returns when nothing runs any more. It may be called twice.
func (p *hop) Close() (err error) {
	p.closing.Do(func() {
		close(p.closed)
		err = p.closeEnds()
		p.ended.Wait()
	})
	return err
}

func (p *hop) closeEnds() (err error) {
	for _, f := range p.ends {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
