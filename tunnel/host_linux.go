package tunnel

import (
	"fmt"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// linuxHost reads and writes whole superpackets where the kernel has them.
type linuxHost struct {
	dev   tun.Device
	label string
	queue *offload.Queue
}

// openHost makes the interface. Naming, MTU and events are the wireguard module's.
func openHost(name string, mtu int) (host, error) {
	dev, err := tun.CreateTUN(name, mtu)
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
