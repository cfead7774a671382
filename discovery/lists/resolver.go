package lists

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	lookupLimit = 5 * time.Second // for one lookup, with all its questions
	// otherFamily is how long the addresses of one family wait for those of the other. RFC 8305 §3 has 50 ms; here the
	// late ones would not come before the next round.
	otherFamily = time.Second
	unknownTTL  = 5 * time.Minute // of a list that the system looked up
	hostTTL     = minTTL          // of a host that the system looked up, which keeps answers itself
)

// resolver looks names up. Each call takes 5 s at most and fails with one of the package's errors, or one whose words do
// not change from time to time.
type resolver interface {
	// host gives the addresses of a host, in no order of families.
	host(ctx context.Context, name string) (answer, error)
	// list gives the SRV or TXT records of a name.
	list(ctx context.Context, name string, qtype uint16) (answer, error)
}

// asking looks up by asking servers itself: for lists, and for hosts if hosts is set.
type asking struct {
	system                                   // for the rest
	servers func() ([]netip.AddrPort, error) // asked anew each time
	hosts   bool
}

func (r asking) host(ctx context.Context, name string) (answer, error) {
	if !r.hosts {
		return r.system.host(ctx, name)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	return bothFamilies(ctx, func(ctx context.Context, v6 bool) (answer, error) {
		if v6 {
			return r.query(ctx, name, dns.TypeAAAA)
		}
		return r.query(ctx, name, dns.TypeA)
	})
}

func (r asking) list(ctx context.Context, name string, qtype uint16) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	return r.query(ctx, name, qtype)
}

func (r asking) query(ctx context.Context, name string, qtype uint16) (answer, error) {
	servers, err := r.servers()
	if err != nil || len(servers) == 0 {
		return answer{}, errNoServer
	}
	m, err := race(ctx, servers, func(ctx context.Context, server netip.AddrPort) (*dns.Msg, error) {
		return exchange(ctx, server, name, qtype)
	})
	if err != nil {
		return answer{}, err
	}
	return readAnswer(m)
}

// system looks up as other programs of the machine do, with its hosts file and whatever else it has for names.
type system struct {
	via *net.Resolver
}

func (s system) host(ctx context.Context, name string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	return bothFamilies(ctx, func(ctx context.Context, v6 bool) (answer, error) {
		network := "ip4"
		if v6 {
			network = "ip6"
		}
		addrs, err := s.via.LookupNetIP(ctx, network, name)
		if err != nil {
			return answer{}, plain(err)
		}
		a := answer{ttl: hostTTL}
		for _, addr := range addrs {
			a.addrs = append(a.addrs, addr.Unmap())
		}
		a.trim()
		return a, nil
	})
}

func (s system) list(ctx context.Context, name string, qtype uint16) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	name = dns.Fqdn(name)
	m := &dns.Msg{Question: []dns.Question{{Name: name, Qtype: qtype, Qclass: dns.ClassINET}}}
	head := dns.RR_Header{Name: name, Rrtype: qtype, Class: dns.ClassINET, Ttl: uint32(unknownTTL / time.Second)}
	if qtype == dns.TypeSRV {
		_, all, err := s.via.LookupSRV(ctx, "", "", name)
		if err != nil && len(all) == 0 {
			return answer{}, plain(err)
		}
		for _, srv := range all {
			m.Answer = append(m.Answer, &dns.SRV{
				Hdr: head, Priority: srv.Priority, Weight: srv.Weight, Port: srv.Port, Target: srv.Target,
			})
		}
		return readAnswer(m)
	}
	all, err := s.via.LookupTXT(ctx, name)
	if err != nil {
		return answer{}, plain(err)
	}
	for _, txt := range all {
		m.Answer = append(m.Answer, &dns.TXT{Hdr: head, Txt: []string{strings.ReplaceAll(txt, `\`, `\\`)}})
	}
	return readAnswer(m)
}

// bothFamilies looks up IPv6 and IPv4 addresses at once. What one gives waits a second at most for the other.
func bothFamilies(ctx context.Context, lookup func(ctx context.Context, v6 bool) (answer, error)) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		answer
		err error
	}
	results := make(chan result)
	for _, v6 := range []bool{true, false} {
		go func() {
			a, err := lookup(ctx, v6)
			results <- result{a, err}
		}()
	}
	first := <-results
	if first.err == nil {
		patience := time.AfterFunc(otherFamily, cancel)
		defer patience.Stop()
	}
	second := <-results
	cancel()
	switch {
	case first.err == nil && second.err == nil:
		return answer{
			addrs: append(first.addrs, second.addrs...),
			ttl:   min(first.ttl, second.ttl),
		}, nil
	case first.err == nil && isNone(second.err):
		return first.answer, nil
	case first.err == nil: // the other family is looked for again soon
		return answer{addrs: first.addrs, ttl: minTTL}, nil
	case second.err == nil && !isNone(first.err):
		return answer{addrs: second.addrs, ttl: minTTL}, nil
	case second.err == nil:
		return second.answer, nil
	case isNone(first.err) && !errors.Is(second.err, errNoName):
		return answer{}, second.err
	}
	return answer{}, first.err
}

// interleave orders a host's addresses for asking: IPv6 and IPv4 by turns, IPv6 first, each family in the order given
// (RFC 8305 §4). Duplicates are dropped.
func interleave(addrs []netip.Addr) []netip.Addr {
	var families [2][]netip.Addr
	seen := make(map[netip.Addr]bool)
	for _, a := range addrs {
		if seen[a] {
			continue
		}
		seen[a] = true
		if a.Is6() {
			families[0] = append(families[0], a)
		} else {
			families[1] = append(families[1], a)
		}
	}
	all := make([]netip.Addr, 0, len(seen))
	for i := range max(len(families[0]), len(families[1])) {
		for _, f := range families {
			if i < len(f) {
				all = append(all, f[i])
			}
		}
	}
	return all
}

// plain is a network error in words that stay the same: without ports and addresses, and in the package's own words for
// what DNS says.
func plain(err error) error {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		switch {
		case e.IsNotFound:
			return errNoName
		case e.IsTimeout:
			return errSilent
		case e.UnwrapErr == nil && e.IsTemporary:
			return errServFail
		}
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	if e, ok := errors.AsType[net.Error](err); errors.Is(err, context.DeadlineExceeded) || ok && e.Timeout() {
		return errSilent
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return cmp.Or(e.Err, err)
	}
	return err
}
