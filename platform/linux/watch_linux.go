package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/platform"
)

const watchBuffer = 64 << 10

// monitor reads rtnetlink's multicast groups. Owned by one Watch.
type monitor struct {
	file    *os.File
	own     func() int // index of the interface that does not count
	changes chan struct{}
	certain atomic.Bool // a link or address went: act even if it is back by now
}

// Watch calls changed when links, addresses or routes changed, but for those of the interface of the last Apply:
// at once for the first change, at most once a second in a burst. Refreshed lifetimes and the like are no change. It
// returns ctx's error when ctx is done.
func (s *System) Watch(ctx context.Context, changed func()) error {
	file, err := subscribe()
	if err != nil {
		return fmt.Errorf("watch network: %w", err)
	}
	last, err := s.Snapshot()
	if err != nil {
		file.Close()
		return fmt.Errorf("watch network: %w", err)
	}
	m := &monitor{file: file, changes: make(chan struct{}, 1), own: func() int { return s.own.Load().index }}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(m.run()) })
	platform.Coalesce(ctx, m.changes, func() {
		certain := m.certain.Swap(false)
		now, err := s.Snapshot()
		if err != nil {
			s.log.Debug("network snapshot failed", "err", err)
		}
		if certain || err != nil || !now.Same(last, s.own.Load().name) {
			last = now
			changed()
		}
	})
	_ = file.SetReadDeadline(time.Unix(1, 0)) // ends run
	wg.Wait()
	file.Close()
	return context.Cause(ctx)
}

func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE |
		unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// run reads until the deadline that Watch sets.
func (m *monitor) run() error {
	buf := make([]byte, watchBuffer)
	for {
		n, err := m.file.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS): // changes were lost, so there were some
			m.certain.Store(true)
			m.signal()
		case err != nil:
			return fmt.Errorf("watch network: %w", err)
		case m.concerns(buf[:n]):
			m.signal()
		}
	}
}

func (m *monitor) signal() {
	select {
	case m.changes <- struct{}{}:
	default: // one is waiting already
	}
}

// concerns reports whether one of the messages is about another interface than our own.
func (m *monitor) concerns(b []byte) bool {
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true // too long for the buffer: something changed
	}
	found := false
	for i := range msgs {
		index, certain, ok := subject(&msgs[i])
		if !ok || index != 0 && index == m.own() {
			continue
		}
		found = true
		if certain {
			m.certain.Store(true)
		}
	}
	return found
}

// subject is the interface a message is about, 0 when it names none. certain: it went, came or changed its state, so
// that the host was cut off however briefly.
func subject(msg *syscall.NetlinkMessage) (index int, certain, ok bool) {
	data := msg.Data
	switch msg.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(data) < unix.SizeofIfInfomsg {
			return 0, false, false
		}
		change := binary.NativeEndian.Uint32(data[12:])
		gone := msg.Header.Type == unix.RTM_DELLINK
		return int(binary.NativeEndian.Uint32(data[4:])), gone || change&(unix.IFF_UP|unix.IFF_RUNNING) != 0, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(data) < unix.SizeofIfAddrmsg {
			return 0, false, false
		}
		return int(binary.NativeEndian.Uint32(data[4:])), msg.Header.Type == unix.RTM_DELADDR, true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return routeLink(msg), false, len(data) >= unix.SizeofRtMsg
	}
	return 0, false, false
}

func routeLink(msg *syscall.NetlinkMessage) int {
	attrs, err := syscall.ParseNetlinkRouteAttr(msg)
	if err != nil {
		return 0
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.RTA_OIF && len(a.Value) >= 4 {
			return int(binary.NativeEndian.Uint32(a.Value))
		}
	}
	return 0
}
