package tunnel

import (
	"fmt"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// linuxHost reads and writes whole superpackets where the kernel has them.
type linuxHost struct {
	dev   tun.Device
	label string
	queue *offload.Queue
}

// openHost makes the interface.
func openHost(name string, mtu int) (host, error) {
	dev, err := createTUN(name, mtu)
	if err != nil {
		return nil, err
	}
	h := &linuxHost{dev: dev}
	if h.label, err = dev.Name(); err == nil {
		h.queue, err = offload.NewQueue(dev.File())
	}
	if err != nil {
		_ = dev.Close()
		return nil, fmt.Errorf("set up %s: %w", name, err)
	}
	return h, nil
}

// createTUN makes a TUN device with the header that superpackets need. The wireguard module's own function would also
// wake up every second to watch the interface, of which platform knows already.
func createTUN(name string, mtu int) (tun.Device, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err == nil {
		err = setMTU(request.Name(), mtu)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make interface %s: %w", name, err)
	}
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		unix.Close(fd)
	}
	return dev, err
}

func setMTU(name string, mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint32(uint32(mtu))
	return unix.IoctlIfreq(fd, unix.SIOCSIFMTU, request)
}

func (h *linuxHost) name() string { return h.label }

func (h *linuxHost) readBatch(wait bool, take func(buf []byte) bool) error {
	if wait {
		return h.queue.ReadBatch(take)
	}
	return h.queue.PollBatch(take)
}

func (h *linuxHost) keep(fresh []byte) { h.queue.Keep(fresh) }

func (h *linuxHost) writer() hostWriter { return &joinWriter{join: h.queue.NewJoin()} }

func (h *linuxHost) write(buf []byte) error {
	_, err := h.dev.Write([][]byte{buf}, headroom)
	return err
}

// run drains the events, or their source would block for ever on the first that nobody takes.
func (h *linuxHost) run() {
	for range h.dev.Events() {
	}
}

func (h *linuxHost) close() error {
	h.queue.Stop()
	return h.dev.Close()
}

// joinWriter is an offload.Join that tells what it lost.
type joinWriter struct {
	join *offload.Join
	lost uint64 // in all
}

func (w *joinWriter) add(pkt []byte) { w.join.Add(pkt) }

func (w *joinWriter) flush() uint64 {
	_ = w.join.Flush() // only the end, which the reader sees too
	s, before := w.join.Stats(), w.lost
	w.lost = s.Down + s.Full + s.Invalid
	return w.lost - before
}
