package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

const (
	probeLimit = 1500 * time.Millisecond
	probeGrace = 250 * time.Millisecond // for the other protocol, once one has answered
	mapLimit   = 2 * time.Second
)

// errRefused is a router that speaks the protocol and says no.
var errRefused = errors.New("the router refuses")

// probed is what the gateway's port 5351 said.
type probed struct {
	pcp, pmp bool       // it speaks the protocol
	address  netip.Addr // outside, by NAT-PMP
}

// acquire makes a mapping at the first gateway that gives one of a global address, or at the first that gives any; nil
// when none does.
func (m *Mapper) acquire(ctx context.Context, gws []Gateway, port uint16) *lease {
	if m.lease == nil {
		m.pcp, m.pmp = epoch{}, epoch{}
	}
	var best *lease
	for _, gw := range gws {
		l := m.acquireAt(ctx, gw, port)
		switch {
		case l == nil:
		case best == nil:
			best = l
		case l.global():
			m.giveBack(ctx, best)
			best = l
		default:
			m.giveBack(ctx, l)
		}
		if best != nil && best.global() || ctx.Err() != nil {
			break
		}
	}
	return best
}

// acquireAt tries all protocols at one gateway, and notes which of them it speaks.
func (m *Mapper) acquireAt(ctx context.Context, gw Gateway, port uint16) *lease {
	m.set(func(s *Status) { *s = Status{Gateway: gw.Addr, External: s.External, Protocol: s.Protocol} })
	var found []*igd
	var wg sync.WaitGroup
	wg.Go(func() {
		found = m.findIGDs(ctx, gw)
		if ctx.Err() == nil {
			m.set(func(s *Status) { s.UPnP = new(len(found) > 0) })
		}
	})
	l, err := m.acquire5351(ctx, gw, port)
	if l != nil && l.global() {
		m.adopt(l) // told at once: what UPnP says is of no interest to it
	}
	wg.Wait()
	for _, d := range found {
		if l != nil || ctx.Err() != nil {
			break
		}
		var upnpErr error
		l, upnpErr = m.mapUPnP(ctx, gw, d, port, m.wanted(port).Port())
		err = errors.Join(err, upnpErr)
	}
	if l == nil && ctx.Err() == nil {
		m.set(func(s *Status) { s.Err = err.Error() })
	}
	return l
}

// wanted is the outside address that is liked best: the last one, or any with the same port as inside.
func (m *Mapper) wanted(port uint16) netip.AddrPort {
	if m.lease != nil && m.lease.port == port {
		return m.lease.external
	}
	return netip.AddrPortFrom(netip.Addr{}, port)
}

// acquire5351 tries PCP and NAT-PMP.
func (m *Mapper) acquire5351(ctx context.Context, gw Gateway, port uint16) (*lease, error) {
	p, err := m.probe(ctx, gw)
	if ctx.Err() == nil {
		m.set(func(s *Status) { s.PCP, s.NATPMP = new(p.pcp), new(p.pmp) })
	}
	if p.pcp {
		var l *lease
		if l, err = m.mapPCP(ctx, gw, port, lifetime); err == nil {
			return l, nil
		}
	}
	if p.pmp {
		l, pmpErr := m.mapPMP(ctx, gw, p.address, port)
		if pmpErr == nil {
			return l, nil
		}
		err = errors.Join(err, pmpErr)
	}
	return nil, err
}

// again renews a lease by the protocol that it was made by.
func (m *Mapper) again(ctx context.Context, l *lease) (*lease, error) {
	switch l.protocol {
	case PCP:
		return m.mapPCP(ctx, l.gw, l.port, lifetime)
	case NATPMP:
		p, err := m.probe(ctx, l.gw)
		if err != nil {
			return nil, err
		}
		return m.mapPMP(ctx, l.gw, p.address, l.port)
	}
	return m.mapUPnP(ctx, l.gw, l.igd, l.port, l.external.Port())
}

// release ends a mapping.
func (m *Mapper) release(ctx context.Context, l *lease) error {
	switch l.protocol {
	case PCP:
		_, err := m.mapPCP(ctx, l.gw, l.port, 0)
		return err
	case NATPMP:
		_, err := m.askPMP(ctx, l.gw, l.port, 0, 0)
		return err
	}
	return m.unmapUPnP(ctx, l)
}

// probe asks by PCP and NAT-PMP together which of them is spoken: neither request changes anything.
func (m *Mapper) probe(ctx context.Context, gw Gateway) (probed, error) {
	var p probed
	var pcpDone, pmpDone bool
	requests := func() (open [][]byte) {
		if !pcpDone {
			open = append(open, pcpAnnounceRequest(gw.Self))
		}
		if !pmpDone {
			open = append(open, pmpAddressRequest())
		}
		return open
	}
	t := talk{listen: m.cfg.Listen, gw: gw, limit: probeLimit, grace: probeGrace}
	err := t.run(ctx, requests, func(pkt []byte) bool {
		now := time.Now()
		if a, err := parsePCP(pkt); err == nil {
			pcpDone, p.pcp = true, a.result != pcpUnsupportedVersion
			m.pcp.read(now, a.epoch)
			return true
		}
		a, err := parsePMP(pkt)
		switch {
		case err != nil:
			return false
		case a.result == pmpUnsupportedVersion:
			pcpDone = true // what a NAT-PMP router says to PCP
		case a.opcode == pmpAddress:
			pmpDone, p.pmp, p.address = true, true, a.address
			if a.result == pmpSuccess {
				m.pmp.read(now, a.epoch)
			}
		}
		return true
	})
	return p, err
}

// mapPCP makes a mapping or renews it, or with life 0 ends it, which returns no lease.
func (m *Mapper) mapPCP(ctx context.Context, gw Gateway, port uint16, life time.Duration) (*lease, error) {
	want := m.wanted(port)
	if life == 0 {
		want = netip.AddrPort{}
	}
	var answer *pcpAnswer
	pkt := pcpMapRequest(gw.Self, m.cfg.Nonce, port, want, uint32(life/time.Second))
	requests := func() [][]byte {
		if answer != nil {
			return nil
		}
		return [][]byte{pkt}
	}
	t := talk{listen: m.cfg.Listen, gw: gw, limit: mapLimit}
	err := t.run(ctx, requests, func(pkt []byte) bool {
		a, err := parsePCP(pkt)
		ours := err == nil && a.opcode == pcpMap && a.nonce == m.cfg.Nonce && a.port == port
		cut := err == nil && a.opcode == pcpMap && a.result != pcpSuccess && a.nonce == [12]byte{}
		if !ours && !cut {
			return false
		}
		answer = &a
		return true
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("pcp: %w", err)
	case answer.result != pcpSuccess:
		return nil, fmt.Errorf("pcp: %w with code %d", errRefused, answer.result)
	case life == 0:
		return nil, nil
	}
	now := time.Now()
	m.pcp.read(now, answer.epoch)
	return newLease(now, PCP, gw, port, answer.external, time.Duration(answer.lifetime)*time.Second)
}

// mapPMP makes a mapping at a gateway with that outside address, or renews it.
func (m *Mapper) mapPMP(ctx context.Context, gw Gateway, outside netip.Addr, port uint16) (*lease, error) {
	if !outside.IsValid() || outside.IsUnspecified() {
		return nil, fmt.Errorf("nat-pmp: %w", errNoAddress)
	}
	a, err := m.askPMP(ctx, gw, port, m.wanted(port).Port(), lifetime)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	m.pmp.read(now, a.epoch)
	external := netip.AddrPortFrom(outside, a.outside)
	return newLease(now, NATPMP, gw, port, external, time.Duration(a.lifetime)*time.Second)
}

func (m *Mapper) askPMP(ctx context.Context, gw Gateway, port, want uint16, life time.Duration) (pmpAnswer, error) {
	var answer *pmpAnswer
	requests := func() [][]byte {
		if answer != nil {
			return nil
		}
		return [][]byte{pmpMapRequest(port, want, uint32(life/time.Second))}
	}
	t := talk{listen: m.cfg.Listen, gw: gw, limit: mapLimit}
	err := t.run(ctx, requests, func(pkt []byte) bool {
		a, err := parsePMP(pkt)
		if err != nil || a.opcode != pmpMapUDP || a.result == pmpSuccess && a.port != port {
			return false
		}
		answer = &a
		return true
	})
	switch {
	case err != nil:
		return pmpAnswer{}, fmt.Errorf("nat-pmp: %w", err)
	case answer.result != pmpSuccess:
		return pmpAnswer{}, fmt.Errorf("nat-pmp: %w with code %d", errRefused, answer.result)
	}
	return *answer, nil
}
