//go:build !linux

package tunnel

import (
	"errors"
	"io/fs"
	"os"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// plainHost moves packet by packet, as the wireguard module's TUN of the system does.
type plainHost struct {
	dev   tun.Device
	label string
	bufs  [][]byte
	sizes []int
	at    int // the buffer at hand
}

// openHost makes the interface.
func openHost(name string, mtu int) (host, error) {
	dev, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return nil, err
	}
	label, err := dev.Name()
	if err != nil {
		_ = dev.Close()
		return nil, err
	}
	h := &plainHost{dev: dev, label: label}
	for range dev.BatchSize() {
		h.bufs, h.sizes = append(h.bufs, make([]byte, headroom+offload.MaxRead)), append(h.sizes, 0)
	}
	return h, nil
}

func (h *plainHost) name() string { return h.label }

// readBatch gives the packets of one read. A virtio-net header of zeros says that each is whole.
func (h *plainHost) readBatch(wait bool, take func(buf []byte) bool) error {
	if !wait {
		return nil // it could; but without superpackets nothing is ever held back
	}
	n, err := h.dev.Read(h.bufs, h.sizes, headroom)
	for i := range n {
		h.at = i
		if h.sizes[i] == 0 {
			continue
		}
		buf := h.bufs[i][headroom-offload.HeaderLen : headroom+h.sizes[i]]
		clear(buf[:offload.HeaderLen])
		take(buf)
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok || errors.Is(err, os.ErrClosed) || n == 0 {
		return err
	}
	return nil // about one packet
}

// keep gives the buffer at hand away. The one that is offered in its place has no room in front.
func (h *plainHost) keep([]byte) { h.bufs[h.at] = make([]byte, headroom+offload.MaxRead) }

func (h *plainHost) writer() hostWriter { return &plainWriter{dev: h.dev} }

func (h *plainHost) write(buf []byte) error {
	_, err := h.dev.Write([][]byte{buf}, headroom)
	return err
}

// run drains the events, or their source would block for ever on the first that nobody takes.
func (h *plainHost) run() {
	for range h.dev.Events() {
	}
}

func (h *plainHost) close() error { return h.dev.Close() }

// plainWriter writes packets as they come. The system wants room in front of each.
type plainWriter struct {
	dev  tun.Device
	buf  []byte
	one  [1][]byte
	lost uint64 // since the last flush
}

func (w *plainWriter) add(pkt []byte) {
	if cap(w.buf) < headroom+len(pkt) {
		w.buf = make([]byte, headroom+len(pkt)+256)
	}
	w.one[0] = w.buf[:headroom+len(pkt)]
	copy(w.one[0][headroom:], pkt)
	if _, err := w.dev.Write(w.one[:], headroom); err != nil { // an interface that is down refuses every packet
		w.lost++
	}
}

func (w *plainWriter) flush() uint64 {
	lost := w.lost
	w.lost = 0
	return lost
}
