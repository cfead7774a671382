package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	udpVector = 64                     // datagrams in one system call
	udpBuffer = 64 << 20               // of the receiving socket: it is not what is measured
	udpTick   = 500 * time.Microsecond // between two bursts
	udpCatch  = 2 * time.Millisecond   // a sender that was held up makes good for no more than this
)

var errNoPackets = errors.New("nothing came")

// udpReceive counts datagrams from the first on: within the window, and until the sender's time is over and no more
// come. A gap before that is the carrier's, and part of what is measured.
func udpReceive(flags *flag.FlagSet, args []string) error {
	var w window
	w.flags(flags)
	listen := flags.String("listen", "127.0.0.1", "address")
	lasts := flags.Duration("lasts", 4*time.Second, "how long the sender sends")
	if err := flags.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddr(*listen)
	if err != nil {
		return err
	}
	fd, err := udpSocket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	quiet := unix.NsecToTimeval(int64(udpQuietTime))
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &quiet),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4()})); err != nil {
		return err
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Println(saysReady, own.(*unix.SockaddrInet4).Port)
	o, err := countDatagrams(fd, &w, *lasts)
	if err != nil {
		return err
	}
	return o.print(os.Stdout)
}

// tally counts datagrams. Owned by udpReceive.
type tally struct {
	w     *window
	o     outcome
	first time.Time
	ended bool // the window is over
}

// countDatagrams reads until the load is over.
func countDatagrams(fd int, w *window, lasts time.Duration) (outcome, error) {
	b, t := newBatch(udpVector, 2048), tally{w: w}
	for opened := time.Now(); ; {
		n, err := b.receive(fd)
		now := time.Now()
		quiet := errors.Is(err, unix.EAGAIN) // nothing for udpQuietTime
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && !quiet:
			return t.o, err
		case quiet && t.first.IsZero():
			if now.Sub(opened) > acceptTime {
				return t.o, errNoPackets
			}
			continue
		case quiet && t.ended && now.Sub(t.first) > lasts:
			return t.o, nil
		}
		if err := t.take(n, now); err != nil {
			return t.o, err
		}
	}
}

// take counts n datagrams that came by now, and begins and ends the window; with n 0 as well, for when none come.
func (t *tally) take(n int, now time.Time) error {
	if t.first.IsZero() {
		t.first = now
	}
	t.o.Total += int64(n)
	switch {
	case t.ended:
	case t.w.begun.IsZero():
		if now.Sub(t.first) >= t.w.warm {
			return t.w.begin()
		}
	default:
		t.o.Packets += int64(n)
		if now.Sub(t.w.begun) >= t.w.length {
			t.ended = true
			return t.w.end(&t.o)
		}
	}
	return nil
}

// udpSend sends datagrams at a rate, in bursts, and prints how many.
func udpSend(flags *flag.FlagSet, args []string) error {
	to := flags.String("to", "", "address and port")
	size := flags.Int("size", 200, "bytes of payload")
	rate := flags.Int("rate", 20000, "datagrams a second")
	length := flags.Duration("for", 3*time.Second, "time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(*to)
	if err != nil {
		return err
	}
	fd, err := udpSocket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: target.Addr().As4(), Port: int(target.Port())})); err != nil {
		return err
	}
	b := newBatch(udpVector, *size)
	sent, err := pace(*rate, *length, func(n int) (int, error) { return b.send(fd, n) })
	if err != nil {
		return err
	}
	return outcome{Sent: sent}.print(os.Stdout)
}

// pace sends what is due every tick, at most udpVector datagrams at once. send returns how many the kernel took.
func pace(rate int, length time.Duration, send func(n int) (int, error)) (sent int64, err error) {
	perSecond := float64(rate)
	most := max(perSecond*udpCatch.Seconds(), udpVector)
	tick := unix.NsecToTimespec(int64(udpTick))
	due := 0.0
	for start, last := time.Now(), time.Now(); time.Since(start) < length; {
		now := time.Now()
		due = min(due+perSecond*now.Sub(last).Seconds(), most)
		last = now
		for due >= 1 {
			n, err := send(min(int(due), udpVector))
			if err != nil && !refused(err) {
				return sent, err
			}
			sent += int64(n)
			due -= max(float64(n), 1) // what was refused is not tried again
		}
		// A signal that cuts it short does no harm.
		_ = unix.Nanosleep(&tick, nil)
	}
	return sent, nil
}

// refused reports whether the kernel did not take a datagram for a reason that passes.
func refused(err error) bool {
	return errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ECONNREFUSED)
}

func udpSocket() (int, error) {
	return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
}
