package e2e

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/netlab"
)

// natTimeout is the shortest that is met: how long a home router keeps a UDP mapping that nothing leaves by.
const natTimeout = 30 * time.Second

// traffic is what a card carried, by who was at the other end.
type traffic map[string]struct{ packets, bytes int }

// tally sorts the frames of a card: names gives those of the other ends, by address, and of services there, by address
// and port. Bytes count the whole IP packet.
func tally(frames []netlab.Frame, since time.Time, names map[string]string) traffic {
	all := traffic{}
	for _, f := range frames {
		const ethernet = 14
		if f.At.Before(since) || len(f.Data) < ethernet+28 {
			continue
		}
		name, size := "other protocols", len(f.Data)-ethernet
		if ip := f.Data[ethernet:]; binary.BigEndian.Uint16(f.Data[12:]) == unix.ETH_P_IP {
			header := int(ip[0]&15) * 4
			size = int(binary.BigEndian.Uint16(ip[2:]))
			addr, port := ip[12:16], ip[header:header+2]
			if f.Outgoing {
				addr, port = ip[16:20], ip[header+2:header+4]
			}
			far, _ := netip.AddrFromSlice(addr)
			proto := map[byte]string{unix.IPPROTO_UDP: "UDP", unix.IPPROTO_TCP: "TCP", unix.IPPROTO_ICMP: "ICMP"}[ip[9]]
			if name = names[far.String()]; name == "" {
				name = fmt.Sprintf("%v:%d", far, binary.BigEndian.Uint16(port))
			}
			name = proto + " " + name
		}
		sum := all[name]
		sum.packets++
		sum.bytes += size
		all[name] = sum
	}
	return all
}

// total is all of it in bytes.
func (tr traffic) total() (bytes int) {
	for _, sum := range tr {
		bytes += sum.bytes
	}
	return bytes
}

func (tr traffic) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(tr)) {
		parts = append(parts, fmt.Sprintf("%s %d packets, %d bytes", name, tr[name].packets, tr[name].bytes))
	}
	return strings.Join(parts, "; ")
}

// quiet is what an idle while cost and left.
type quiet struct {
	withServer, withMember traffic // of alice
	first                  map[string]time.Duration
}

// idle leaves two worlds without traffic: one with a relay server, one with a member that is home to the others, whose
// NATs forget within 30 s. It counts for a while after what is done before, and then times the first packets.
func idle(t testing.TB, before func(), while time.Duration) *quiet {
	t.Helper()
	s, m := newRemotes(t, byServer), newRemotes(t, byMember)
	for _, site := range []*netlab.Site{m.sa, m.sb} {
		site.Router.UDPTimeout(natTimeout)
	}
	m.a.ping(m.b.ip4, 20*time.Second)
	before()
	begun := time.Now()
	sc, mc := s.a.host.Capture(s.a.host.Card().Name()), m.a.host.Capture(m.a.host.Card().Name())
	time.Sleep(while)
	q := &quiet{first: map[string]time.Duration{}}
	q.withServer = tally(sc.Packets(), begun, s.names())
	q.withMember = tally(mc.Packets(), begun, m.names())
	q.first["relay server: bob to alice"] = s.b.ping(s.a.ip4, 20*time.Second)
	q.first["home to alice"] = m.member.ping(m.a.ip4, 20*time.Second)
	q.first["home: bob to alice"] = m.b.ping(m.a.ip4, 20*time.Second)
	return q
}

// names are who is where, as alice sees it.
func (p *remotes) names() map[string]string {
	names := map[string]string{
		p.sb.Outside.Addr4().String(): "bob", p.b.host.Card().Addr4().String(): "bob inside",
	}
	if p.member != nil {
		names[p.member.host.Card().Addr4().String()] = "carol"
	}
	if p.relayHost != nil {
		names[p.relayHost.Card().Addr4().String()] = "relay server"
	}
	return names
}

// log prints all of it, and returns the most bytes per second and the slowest first packet.
func (q *quiet) log(t testing.TB, while time.Duration) (rate float64, slowest time.Duration) {
	t.Helper()
	for name, tr := range map[string]traffic{"relay server": q.withServer, "home": q.withMember} {
		perSecond := float64(tr.total()) / while.Seconds()
		t.Logf("%s, in %v: %.1f bytes/s; %v", name, while, perSecond, tr)
		rate = max(rate, perSecond)
	}
	for name, took := range q.first {
		t.Logf("%s, first reply after %v", name, took.Round(time.Millisecond))
		slowest = max(slowest, took)
	}
	return rate, slowest
}

// lively is what members who have just met may carry, in bytes a second: they look for better paths and for a port at
// their router, and ask each other every 20 s whether they are there.
const lively = 700

// TestIdle counts what idle members send, and reaches them.
func TestIdle(t *testing.T) {
	t.Parallel()
	const while = 75 * time.Second
	rate, slowest := idle(t, func() { time.Sleep(5 * time.Second) }, while).log(t, while)
	if rate > lively {
		t.Errorf("an idle node carries %.0f bytes per second", rate)
	}
	if slowest > guard*outageBar {
		t.Errorf("a first reply after %v", slowest)
	}
}

// BenchmarkBarIdle prints what a node carries in five idle minutes, and how long a first packet takes then: at most 1.5 s,
// also behind a NAT that forgets within 30 s. In the minutes before, in which paths cool down, it prints what an idle node
// without the Internet costs: less than 0.2 % of a processor.
func BenchmarkBarIdle(b *testing.B) {
	const while = 5 * time.Minute
	rate, slowest := idle(b, func() { reportCutOff(b) }, while).log(b, while)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, "bytes/s")
	b.ReportMetric(ms(slowest), "ms-first-reply-worst")
}
