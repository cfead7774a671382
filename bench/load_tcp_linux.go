package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tcpBlock   = 256 << 10 // bytes in one write and in one read
	acceptTime = 20 * time.Second
)

var errSOCKS = errors.New("the proxy refused")

// tcpReceive accepts connections, discards what they bring and prints how much that was within the window.
func tcpReceive(flags *flag.FlagSet, args []string) error {
	var w window
	w.flags(flags)
	listen := flags.String("listen", "127.0.0.1", "address")
	streams := flags.Int("streams", 1, "connections that must have come before the warm-up")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(*listen, "0"))
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Println(saysReady, listener.Addr().(*net.TCPAddr).Port)
	listener.(*net.TCPListener).SetDeadline(time.Now().Add(acceptTime))
	var received atomic.Int64
	var readers sync.WaitGroup
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
		readers.Wait()
	}()
	for len(conns) < *streams {
		c, err := listener.Accept()
		if err != nil {
			return err
		}
		conns = append(conns, c)
		readers.Go(func() { discard(c, &received) })
	}
	time.Sleep(w.warm)
	if err := w.begin(); err != nil {
		return err
	}
	before := received.Load()
	time.Sleep(w.length)
	o := outcome{Bytes: received.Load() - before}
	if err := w.end(&o); err != nil {
		return err
	}
	return o.print(os.Stdout)
}

// discard counts what a connection brings until it ends.
func discard(c net.Conn, received *atomic.Int64) {
	buf := make([]byte, tcpBlock)
	for {
		n, err := c.Read(buf)
		received.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// tcpSend writes to connections until the receiver closes them.
func tcpSend(flags *flag.FlagSet, args []string) error {
	to := flags.String("to", "", "address and port")
	socks := flags.String("socks", "", "address of a SOCKS5 proxy to go through")
	streams := flags.Int("streams", 1, "connections")
	if err := flags.Parse(args); err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(*to)
	if err != nil {
		return err
	}
	var conns []net.Conn
	for range *streams {
		c, err := dial(target, *socks)
		if err != nil {
			return err
		}
		defer c.Close()
		conns = append(conns, c)
	}
	var writers sync.WaitGroup
	for _, c := range conns {
		writers.Go(func() {
			for buf := make([]byte, tcpBlock); ; {
				if _, err := c.Write(buf); err != nil {
					return // the receiver has what it wants
				}
			}
		})
	}
	writers.Wait()
	return nil
}

func dial(target netip.AddrPort, socks string) (net.Conn, error) {
	d := net.Dialer{Timeout: acceptTime}
	if socks == "" {
		return d.Dial("tcp", target.String())
	}
	c, err := d.Dial("tcp", socks)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(acceptTime))
	if err := askSOCKS(c, target); err != nil {
		c.Close()
		return nil, fmt.Errorf("through %s: %w", socks, err)
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// askSOCKS asks a SOCKS5 proxy for a connection to an IPv4 address, without a password (RFC 1928 §3, §4).
func askSOCKS(c io.ReadWriter, target netip.AddrPort) error {
	request := []byte{5, 1, 0, 5, 1, 0, 1} // greeting and request in one
	request = append(request, target.Addr().AsSlice()...)
	if _, err := c.Write(binary.BigEndian.AppendUint16(request, target.Port())); err != nil {
		return err
	}
	reply := make([]byte, 2+10)
	if _, err := io.ReadFull(c, reply); err != nil {
		return err
	}
	if reply[0] != 5 || reply[1] != 0 || reply[2] != 5 || reply[3] != 0 {
		return fmt.Errorf("%w: % x", errSOCKS, reply)
	}
	return nil
}
