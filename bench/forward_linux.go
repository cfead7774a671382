package main

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"
)

const (
	outerHeader  = 16      // type, receiver and counter, as in WireGuard's transport message
	vnetHeader   = 10      // struct virtio_net_hdr
	deviceRead   = 1 << 17 // more than the largest packet of a TUN device
	socketBuffer = 7 << 20
)

// forward carries a TUN device over UDP to one fixed peer, the leanest way that a program can: no handshake, no
// replay window, no routing, no timers. One goroutine sends, one receives, and neither hands a packet to another.
// IPv4 only.
func forward(flags *flag.FlagSet, args []string) error {
	device := flags.String("tun", "fwd0", "name of the device")
	listen := flags.String("listen", "", "own address and port")
	peer := flags.String("peer", "", "the peer's address and port")
	crypt := flags.String("crypt", "none", "none or chacha")
	if err := flags.Parse(args); err != nil {
		return err
	}
	aead, err := newAEAD(*crypt)
	if err != nil {
		return err
	}
	own, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(*peer)
	if err != nil {
		return err
	}
	tun, err := openTUN(*device)
	if err != nil {
		return fmt.Errorf("open tun: %w", err)
	}
	socket, err := openPeer(own, to)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	fmt.Println(saysReady)
	ended := make(chan error, 2)
	go func() { ended <- newSender(tun, socket, aead).run() }()            // ends with the process
	go func() { ended <- (&receiver{tun: tun, aead: aead}).run(socket) }() // so does this one
	return <-ended
}

// newAEAD is the seal with a fixed key, or nil for none. It hides nothing: both ends know the key from this line.
func newAEAD(name string) (cipher.AEAD, error) {
	switch name {
	case "none":
		return nil, nil
	case "chacha":
		return chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	default:
		return nil, fmt.Errorf("-crypt %q: want none or chacha", name)
	}
}

// openTUN opens a device whose packets carry a virtio_net_hdr, and lets the kernel leave checksums and segments of
// TCP and, where it can, of UDP to this program. Reads do not block.
func openTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return -1, err
	}
	const offload = unix.TUN_F_CSUM | unix.TUN_F_TSO4
	// Both flags for UDP or neither; kernels before 6.2 know none.
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		return fd, nil
	}
	return fd, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload)
}

// openPeer opens a socket connected to the peer that gets runs of datagrams in one piece.
func openPeer(own, peer netip.AddrPort) (int, error) {
	fd, err := udpSocket()
	if err != nil {
		return -1, err
	}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer),
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: own.Addr().As4(), Port: int(own.Port())}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: peer.Addr().As4(), Port: int(peer.Port())}))
}

// nonce is the nonce of a counter, as in WireGuard.
func nonce(to []byte, counter uint64) { binary.LittleEndian.PutUint64(to[4:], counter) }
