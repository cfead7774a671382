package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// The delays of RFC 8305.
const (
	resolutionDelay = 50 * time.Millisecond  // §3: how long IPv4 waits for IPv6 addresses to be known
	attemptDelay    = 250 * time.Millisecond // §5: between the starts of two attempts
)

// racer connects to a host that has many addresses: Happy Eyeballs version 2, RFC 8305. Immutable.
type racer struct {
	// lookup returns the addresses of a name in one family: network is ip6 or ip4.
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// connect returns the first connection that comes about. IPv6 and IPv4 take turns, an attempt that fails is followed by
// the next one at once, and one that takes long is overtaken. The error has those of all lookups and attempts.
func (r racer) connect(ctx context.Context, host string, port uint16) (net.Conn, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return r.dial(ctx, netip.AddrPortFrom(addr, port))
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	race := race{answers: make(chan answer, 2), results: make(chan result)}
	for _, network := range []string{"ip6", "ip4"} {
		race.looking++
		wg.Go(func() {
			addrs, err := r.lookup(ctx, network, host)
			race.answers <- answer{network, addrs, err}
		})
	}
	timer := time.NewTimer(attemptDelay)
	defer timer.Stop()
	for {
		if addr, ok := race.next(); ok {
			race.running++
			race.wait = true
			timer.Reset(attemptDelay)
			wg.Go(func() {
				conn, err := r.dial(ctx, netip.AddrPortFrom(addr, port))
				race.end(ctx, conn, err)
			})
			continue
		}
		if race.lost() {
			if len(race.errs) == 0 {
				return nil, fmt.Errorf("%s has no addresses", host)
			}
			return nil, errors.Join(race.errs...)
		}
		select {
		case a := <-race.answers:
			race.answered(a, timer)
		case got := <-race.results:
			race.running--
			if got.err == nil {
				return got.conn, nil
			}
			race.errs = append(race.errs, got.err)
			race.wait = false
		case <-timer.C:
			race.wait = false
		case <-ctx.Done():
			return nil, errors.Join(append(race.errs, context.Cause(ctx))...)
		}
	}
}

// race is what is known while a racer connects. Owned by the loop of connect, but for the channels.
type race struct {
	answers chan answer
	results chan result

	v6, v4  []netip.Addr // not tried yet
	last6   bool         // the address tried last was IPv6
	looking int          // lookups without an answer
	running int
	wait    bool // for an event before the next attempt
	errs    []error
}

type answer struct {
	network string
	addrs   []netip.Addr
	err     error
}

type result struct {
	conn net.Conn
	err  error
}

// end hands over what became of an attempt, unless the race is over.
func (r *race) end(ctx context.Context, conn net.Conn, err error) {
	select {
	case r.results <- result{conn, err}:
	case <-ctx.Done():
		if conn != nil {
			conn.Close()
		}
	}
}

// answered takes what a lookup found. IPv4 that comes first waits a moment for IPv6.
func (r *race) answered(a answer, timer *time.Timer) {
	r.looking--
	if a.err != nil {
		r.errs = append(r.errs, a.err)
	}
	if a.network == "ip6" {
		r.v6 = a.addrs
	} else {
		r.v4 = a.addrs
	}
	switch {
	case r.running > 0: // the clock of the last attempt runs
	case r.looking > 0 && a.network == "ip4" && len(a.addrs) > 0:
		r.wait = true
		timer.Reset(resolutionDelay)
	default:
		r.wait = false
	}
}

// next takes the address to try now, if there is one and it is time.
func (r *race) next() (netip.Addr, bool) {
	if r.wait || len(r.v6)+len(r.v4) == 0 {
		return netip.Addr{}, false
	}
	from := &r.v6
	if len(r.v6) == 0 || r.last6 && len(r.v4) > 0 {
		from = &r.v4
	}
	addr := (*from)[0]
	*from = (*from)[1:]
	r.last6 = from == &r.v6
	return addr, true
}

// lost reports whether nothing is left that might still connect.
func (r *race) lost() bool {
	return r.running == 0 && r.looking == 0 && len(r.v6)+len(r.v4) == 0
}

// lookupIn resolves with the resolver given. No address in a family is no error.
func lookupIn(resolver *net.Resolver) func(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		addrs, err := resolver.LookupNetIP(ctx, network, host)
		if notFound, ok := errors.AsType[*net.DNSError](err); ok && notFound.IsNotFound {
			return nil, nil
		}
		if _, ok := errors.AsType[*net.AddrError](err); ok {
			return nil, nil
		}
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", host, err)
		}
		return addrs, nil
	}
}
