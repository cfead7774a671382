package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/hop"
)

const (
	floodPool    = 2048 // packets that are sent in turn
	floodSources = 64   // sockets that send them, each with an address and a port of its own
	floodMost    = 1200 // bytes of a packet
)

// floodFirst is the first of the addresses that a flood says it comes from; nobody has them.
var floodFirst = netip.MustParseAddr("192.168.7.100")

// foreign makes a packet that means nothing to a node within p, and returns it.
type foreign func(p []byte, r *rand.ChaCha8) []byte

// foreigner returns what makes packets of a kind. They take a node as long as possible to tell.
func foreigner(kind string) foreign {
	switch kind {
	case floodSTUN:
		return stunResponse
	case floodDisco:
		return randomly(disco.MinSize, byte(disco.TypePing))
	case floodFrames:
		return randomly(64, hop.FirstFrame, 0, 0, 0)
	}
	return randomly(1)
}

// randomly makes packets of least to floodMost bytes that begin as told and go on at random.
func randomly(least int, head ...byte) foreign {
	return func(p []byte, r *rand.ChaCha8) []byte {
		p = p[:least+int(r.Uint64()%uint64(len(p)-least))]
		r.Read(p)
		copy(p, head)
		return p
	}
}

// stunResponse makes an answer to a STUN request that nobody sent (RFC 8489 §5, §14.2).
func stunResponse(p []byte, r *rand.ChaCha8) []byte {
	const (
		header     = 20
		success    = 0x0101
		cookie     = 0x2112A442
		xorMapped  = 0x0020
		familyIPv4 = 1
	)
	p = p[:header+12]
	r.Read(p)
	binary.BigEndian.PutUint16(p, success)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-header))
	binary.BigEndian.PutUint32(p[4:], cookie)
	binary.BigEndian.PutUint16(p[header:], xorMapped)
	binary.BigEndian.PutUint16(p[header+2:], 8)
	binary.BigEndian.PutUint16(p[header+4:], familyIPv4)
	return p
}

// foreignPackets makes packets of some kinds, in turn.
func foreignPackets(kinds []string, n int) [][]byte {
	r := rand.NewChaCha8([32]byte{1})
	pkts := make([][]byte, n)
	for i := range pkts {
		pkts[i] = foreigner(kinds[i%len(kinds)])(make([]byte, floodMost), r)
	}
	return pkts
}

// flood sends foreign packets at a rate, in bursts, and prints how many, and what CPU the daemons took meanwhile.
func flood(flags *flag.FlagSet, args []string) error {
	var w window
	w.flags(flags)
	to := flags.String("to", "", "address and port")
	kinds := flags.String("kinds", strings.Join(floodKinds(), ","), "kinds of packets")
	rate := flags.Int("rate", steadyRate, "packets a second")
	if err := flags.Parse(args); err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(*to)
	if err != nil {
		return err
	}
	chosen, err := choose(*kinds, floodKinds())
	if err != nil {
		return err
	}
	f, err := newFlooder(target, foreignPackets(chosen, floodPool))
	if err != nil {
		return err
	}
	defer f.close()
	fmt.Println(saysReady, target.Port())
	if _, err := pace(*rate, w.warm, f.send); err != nil {
		return err
	}
	if err := w.begin(); err != nil {
		return err
	}
	var o outcome
	if o.Sent, err = pace(*rate, w.length, f.send); err != nil {
		return err
	}
	if err := w.end(&o); err != nil {
		return err
	}
	return o.print(os.Stdout)
}

// flooder sends packets from many sources. Owned by flood.
type flooder struct {
	fds  []int
	pkts [][]byte
	b    *batch
	turn int // bursts so far
	next int // packet
}

// newFlooder opens the sources. Their addresses are not the host's: what is answered to them gets nowhere.
func newFlooder(to netip.AddrPort, pkts [][]byte) (*flooder, error) {
	f := &flooder{pkts: pkts, b: newBatch(udpVector, 1)}
	from := floodFirst
	for range floodSources {
		fd, err := udpSocket()
		if err != nil {
			f.close()
			return nil, err
		}
		f.fds = append(f.fds, fd)
		if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}),
			unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})); err != nil {
			f.close()
			return nil, err
		}
		from = from.Next()
	}
	return f, nil
}

// send sends the next n packets, a burst of one source.
func (f *flooder) send(n int) (int, error) {
	for i := range n {
		p := f.pkts[(f.next+i)%len(f.pkts)]
		f.b.iovs[i].Base = &p[0]
		f.b.iovs[i].SetLen(len(p))
	}
	f.next += n
	f.turn++
	return f.b.send(f.fds[f.turn%len(f.fds)], n)
}

func (f *flooder) close() {
	for _, fd := range f.fds {
		unix.Close(fd)
	}
}
