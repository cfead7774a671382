package discovery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/netmap"
)

const (
	maxServers  = 8
	maxTargets  = 24
	perFamily   = 2 // addresses of one name
	resolveWait = 1200 * time.Millisecond
)

// targets are the server addresses to ask, and a report of each name that has none. It takes resolveWait at most.
func (r *Reporter) targets(ctx context.Context, full bool) ([]Target, []ServerReport) {
	r.mu.Lock()
	near := r.near
	r.mu.Unlock()
	if !full && len(near) > 0 {
		return near, nil
	}
	names := distinctNames(r.cfg.Servers())
	found := make([][]netip.AddrPort, len(names))
	errs := make([]error, len(names))
	ctx, cancel := context.WithTimeout(ctx, resolveWait)
	defer cancel()
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { found[i], errs[i] = Resolve(ctx, name) })
	}
	wg.Wait()
	var all []Target
	var failed []ServerReport
	local := r.cfg.Local()
	for i, name := range names {
		usable := slices.DeleteFunc(found[i], func(a netip.AddrPort) bool { return !speaks(local, a.Addr()) })
		switch {
		case errs[i] != nil:
			failed = append(failed, ServerReport{Server: name, Err: errs[i].Error()})
		case len(usable) == 0:
			failed = append(failed, ServerReport{Server: name, Err: "this host has no address of its family"})
		}
		count := map[bool]int{}
		for _, a := range usable {
			known := slices.ContainsFunc(all, func(t Target) bool { return t.Addr == a })
			if is4 := a.Addr().Is4(); !known && count[is4] < perFamily && len(all) < maxTargets {
				count[is4]++
				all = append(all, Target{name, a})
			}
		}
	}
	return all, failed
}

// speaks reports whether a host with these addresses may get to a server, as far as the family goes: a round waits for what
// it has asked.
func speaks(local []netip.AddrPort, server netip.Addr) bool {
	return len(local) == 0 || slices.ContainsFunc(local, func(l netip.AddrPort) bool {
		ip := l.Addr().Unmap()
		return ip.Is4() == server.Is4() && (scopeOf(ip) >= scopeSite || scopeOf(ip) >= scopeOf(server))
	})
}

func distinctNames(names []string) []string {
	var all []string
	for _, n := range names {
		if !slices.Contains(all, n) && len(all) < maxServers {
			all = append(all, n)
		}
	}
	return all
}

// ask runs one Behaviour. It fails when ctx ends, or something that goes before it is wanted.
func (r *Reporter) ask(ctx context.Context, full bool, targets []Target) (Report, bool) {
	var wg sync.WaitGroup
	defer wg.Wait()
	second := r.second(full && len(targets) > 0)
	if second != nil {
		defer second.Close()
		wg.Go(func() { r.receive(second) })
	}
	b := NewBehaviour(time.Now(), Round{Targets: targets, Local: r.cfg.Local(), Second: second != nil})
	r.mu.Lock()
	r.round = b
	r.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		packets, next, stop := r.tick(b, full)
		if stop {
			return Report{}, false
		}
		r.send(second, packets)
		if next.IsZero() {
			break
		}
		if full {
			r.tellEarly(b)
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return Report{}, false
		case <-r.wake:
		case <-timer.C:
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return b.Report(time.Now()), true
}

// tellEarly tells where a round under way has found us to be, when that is news. The rest of the round waits for what may
// never come, while members may wait to hear where we are. The kind of NAT is waited for a little: it decides how they try.
func (r *Reporter) tellEarly(b *Behaviour) {
	now := time.Now()
	r.mu.Lock()
	old := r.report
	rep := b.Report(now).after(old)
	news := rep.NAT != old.NAT || !slices.Equal(rep.Mapped, old.Mapped)
	if len(rep.Mapped) == 0 || !news || rep.NAT == netmap.NATUnknown && now.Before(b.started.Add(fallbackAfter)) {
		r.mu.Unlock()
		return
	}
	r.report = rep
	r.mu.Unlock()
	r.cfg.Logger.Debug("stun round under way", "endpoint", rep.IPv4, "nat", rep.NAT, "took", rep.Took)
	if r.cfg.Early != nil {
		r.cfg.Early(rep)
	}
}

// tick asks the machine what to do. stop: the links changed, or a full round is wanted instead of a light one.
func (r *Reporter) tick(b *Behaviour, full bool) (packets []Packet, next time.Time, stop bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed || !full && len(r.waiting) > 0 {
		return nil, next, true
	}
	now := time.Now()
	packets = b.Tick(now)
	r.count.Sent += uint64(len(packets))
	return packets, b.Next(), false
}

func (r *Reporter) send(second net.PacketConn, packets []Packet) {
	for _, p := range packets {
		if p.By == MainSocket {
			r.cfg.Send(p.To, p.Data)
			continue
		}
		// What is not sent is asked again, or not answered.
		_, _ = second.WriteTo(p.Data, net.UDPAddrFromAddrPort(p.To))
	}
}

// second opens the second socket, or returns nil.
func (r *Reporter) second(wanted bool) net.PacketConn {
	if !wanted || r.cfg.Open == nil {
		return nil
	}
	pc, err := r.cfg.Open()
	if err != nil {
		r.cfg.Logger.Debug("open second socket", "err", err)
		return nil
	}
	return pc
}

// receive reads the second socket until it is closed.
func (r *Reporter) receive(pc net.PacketConn) {
	buf := make([]byte, maxSTUN+1)
	// Some systems report here that a packet sent before was refused.
	for refused := 0; refused < 100; {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			refused++
			continue
		}
		if u, ok := from.(*net.UDPAddr); ok {
			r.handle(SecondSocket, u.AddrPort(), buf[:n])
		}
	}
}

// nearest are the servers to ask again and again: the quickest ones, at different addresses as far as there are any,
// and not all of one family.
func nearest(reports []ServerReport) []Target {
	reports = slices.DeleteFunc(slices.Clone(reports), func(s ServerReport) bool { return !s.Mapped.IsValid() })
	slices.SortStableFunc(reports, func(a, b ServerReport) int { return int(a.Latency - b.Latency) })
	var near []Target
	seen := make(map[netip.Addr]bool)
	for _, is4 := range []bool{true, false} {
		n := 0
		for _, s := range reports {
			ip := s.Addr.Addr()
			if ip.Is4() == is4 && n < fewServers-1 && !seen[ip] {
				n++
				seen[ip] = true
				near = append(near, Target{s.Server, s.Addr})
			}
		}
	}
	return near
}

// after completes a light report with what only full ones find out.
func (r Report) after(full Report) Report {
	if moved(full, r) {
		return r
	}
	r.Filtering, r.Hairpin = full.Filtering, full.Hairpin
	if r.NAT == full.NAT || r.NAT == netmap.NATUnknown {
		r.NAT, r.Mapping = full.NAT, full.Mapping
	}
	return r
}

// moved reports whether a new report sees us at an address that the old one did not know, so that all else may be
// different too.
func moved(old, new Report) bool {
	return slices.ContainsFunc(new.Mapped, func(m netip.AddrPort) bool {
		return !slices.ContainsFunc(old.Mapped, func(o netip.AddrPort) bool { return o.Addr() == m.Addr() })
	})
}
