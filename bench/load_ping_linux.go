package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	echoRequest, echoReply = 8, 0        // RFC 792
	echoSize               = 64          // bytes of ICMP, as ping sends them
	echoWait               = time.Second // for the last replies
	echoPoll               = time.Second / 20
)

// echoes is the state of a series of ICMP echoes: when each left, and how long its reply took. Guarded by mu.
type echoes struct {
	fd int
	to unix.SockaddrInet4
	id uint16

	mu   sync.Mutex
	left []time.Time // by sequence number
	rtt  map[int]time.Duration
}

// pingLoop sends an ICMP echo at an interval and prints how long replies took. The kernel says when a reply came, so
// that what is measured is the path, not how soon this process gets the CPU.
func pingLoop(flags *flag.FlagSet, args []string) error {
	to := flags.String("to", "", "address")
	every := flags.Duration("every", 10*time.Millisecond, "interval")
	count := flags.Int("count", 300, "echoes, at most 65536")
	if err := flags.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddr(*to)
	if err != nil {
		return err
	}
	if *count < 1 || *count > 1<<16 {
		return fmt.Errorf("-count %d is not between 1 and 65536", *count)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(int64(echoPoll))
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)); err != nil {
		return err
	}
	e := &echoes{
		fd: fd, to: unix.SockaddrInet4{Addr: addr.As4()}, id: uint16(os.Getpid()),
		left: make([]time.Time, 0, *count), rtt: make(map[int]time.Duration, *count),
	}
	if err := e.run(*every, *count); err != nil {
		return err
	}
	return e.outcome().print(os.Stdout)
}

// run sends all and collects the replies.
func (e *echoes) run(every time.Duration, count int) error {
	var receiver sync.WaitGroup
	var err error
	receiver.Go(func() { err = e.receive(count, time.Now().Add(time.Duration(count)*every+echoWait)) })
	tick := time.NewTicker(every)
	defer tick.Stop()
	for seq := range count {
		e.send(seq)
		<-tick.C
	}
	receiver.Wait()
	return err
}

// send sends one echo. One that the kernel refuses counts as lost.
func (e *echoes) send(seq int) {
	b := make([]byte, echoSize)
	b[0] = echoRequest
	binary.BigEndian.PutUint16(b[4:], e.id)
	binary.BigEndian.PutUint16(b[6:], uint16(seq))
	binary.NativeEndian.PutUint16(b[2:], ^fold(sum(b, 0)))
	e.mu.Lock()
	e.left = append(e.left, time.Now())
	e.mu.Unlock()
	_ = unix.Sendto(e.fd, b, 0, &e.to)
}

// receive takes replies until all have come or the deadline.
func (e *echoes) receive(count int, deadline time.Time) error {
	buf, oob := make([]byte, 1500), make([]byte, 128)
	for got := 0; got < count && time.Now().Before(deadline); {
		n, on, _, _, err := unix.Recvmsg(e.fd, buf, oob, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		seq, ok := parseReply(buf[:n], e.id)
		if !ok {
			continue
		}
		at := arrival(oob[:on])
		e.mu.Lock()
		if seq < len(e.left) {
			if _, twice := e.rtt[seq]; !twice {
				e.rtt[seq] = at.Sub(e.left[seq].Round(0)) // the kernel's clock is the wall clock
				got++
			}
		}
		e.mu.Unlock()
	}
	return nil
}

// parseReply returns the sequence number of an echo reply to id, from an IPv4 packet.
func parseReply(p []byte, id uint16) (seq int, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return 0, false
	}
	header := int(p[0]&15) * 4
	if len(p) < header+8 {
		return 0, false
	}
	m := p[header:]
	if m[0] != echoReply || binary.BigEndian.Uint16(m[4:]) != id {
		return 0, false
	}
	return int(binary.BigEndian.Uint16(m[6:])), true
}

// arrival is the kernel's timestamp of a message, or now if it has none.
func arrival(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS &&
				len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
				return time.Unix(ts.Unix())
			}
		}
	}
	return time.Now().Round(0)
}

func (e *echoes) outcome() outcome {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []float64
	for _, d := range e.rtt {
		all = append(all, float64(d)/float64(time.Microsecond))
	}
	slices.Sort(all)
	o := outcome{Sent: int64(len(e.left)), Lost: int64(len(e.left) - len(all))}
	if len(all) > 0 {
		o.RTT50, o.RTT99 = quantile(all, 0.5), quantile(all, 0.99)
	}
	return o
}
