package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeNet answers lookups and attempts after given times.
type fakeNet struct {
	names map[string]fakeLookup // by family
	hosts map[string]fakeHost   // by address

	mu    sync.Mutex
	tried []string // address@time
	open  int      // connections that were made and not closed
	began time.Time
}

type fakeLookup struct {
	after time.Duration
	addrs []string
	err   error
}

type fakeHost struct {
	after time.Duration
	err   error
}

type fakeConn struct {
	net.Conn
	from string
	net  *fakeNet
}

func (c *fakeConn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.net.open--
	return nil
}

func (f *fakeNet) lookup(ctx context.Context, network, _ string) ([]netip.Addr, error) {
	l := f.names[network]
	select {
	case <-time.After(l.after):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var addrs []netip.Addr
	for _, a := range l.addrs {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs, l.err
}

func (f *fakeNet) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	f.mu.Lock()
	f.tried = append(f.tried, fmt.Sprintf("%s@%s", addr.Addr(), time.Since(f.began)))
	f.mu.Unlock()
	host, ok := f.hosts[addr.Addr().String()]
	if !ok {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	// Some connect in the very moment in which the race is decided.
	time.Sleep(host.after)
	if host.err != nil {
		return nil, host.err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open++
	return &fakeConn{from: addr.Addr().String(), net: f}, nil
}

func TestRace(t *testing.T) {
	const ms = time.Millisecond
	refused := errors.New("refused")
	noDNS := errors.New("no name server")
	for _, tt := range []struct {
		name  string
		names map[string]fakeLookup
		hosts map[string]fakeHost
		tried []string
		won   string
		errs  []string
		took  time.Duration
	}{
		{
			name:  "IPv6 first when both are known",
			names: map[string]fakeLookup{"ip6": {5 * ms, []string{"2001:db8::1"}, nil}, "ip4": {5 * ms, []string{"192.0.2.1"}, nil}},
			hosts: map[string]fakeHost{"2001:db8::1": {20 * ms, nil}},
			tried: []string{"2001:db8::1@5ms"},
			won:   "2001:db8::1", took: 25 * ms,
		},
		{
			name:  "IPv4 waits a moment for IPv6",
			names: map[string]fakeLookup{"ip6": {40 * ms, []string{"2001:db8::1"}, nil}, "ip4": {0, []string{"192.0.2.1"}, nil}},
			hosts: map[string]fakeHost{"2001:db8::1": {20 * ms, nil}},
			tried: []string{"2001:db8::1@40ms"},
			won:   "2001:db8::1", took: 60 * ms,
		},
		{
			name:  "but not for ever",
			names: map[string]fakeLookup{"ip6": {5 * time.Second, []string{"2001:db8::1"}, nil}, "ip4": {10 * ms, []string{"192.0.2.1"}, nil}},
			hosts: map[string]fakeHost{"192.0.2.1": {20 * ms, nil}},
			tried: []string{"192.0.2.1@60ms"},
			won:   "192.0.2.1", took: 80 * ms,
		},
		{
			name:  "IPv4 does not wait when there is no IPv6",
			names: map[string]fakeLookup{"ip6": {5 * ms, nil, nil}, "ip4": {10 * ms, []string{"192.0.2.1"}, nil}},
			hosts: map[string]fakeHost{"192.0.2.1": {20 * ms, nil}},
			tried: []string{"192.0.2.1@10ms"},
			won:   "192.0.2.1", took: 30 * ms,
		},
		{
			name:  "a name server that fails for one family",
			names: map[string]fakeLookup{"ip6": {5 * ms, nil, noDNS}, "ip4": {0, []string{"192.0.2.1"}, nil}},
			hosts: map[string]fakeHost{"192.0.2.1": {20 * ms, nil}},
			tried: []string{"192.0.2.1@5ms"},
			won:   "192.0.2.1", took: 25 * ms,
		},
		{
			name:  "what hangs is overtaken, by turns",
			names: map[string]fakeLookup{"ip6": {0, []string{"2001:db8::1", "2001:db8::2"}, nil}, "ip4": {0, []string{"192.0.2.1", "192.0.2.2"}, nil}},
			hosts: map[string]fakeHost{"192.0.2.2": {20 * ms, nil}},
			tried: []string{"2001:db8::1@0s", "192.0.2.1@250ms", "2001:db8::2@500ms", "192.0.2.2@750ms"},
			won:   "192.0.2.2", took: 770 * ms,
		},
		{
			name:  "what fails is followed at once",
			names: map[string]fakeLookup{"ip6": {0, []string{"2001:db8::1"}, nil}, "ip4": {0, []string{"192.0.2.1"}, nil}},
			hosts: map[string]fakeHost{"2001:db8::1": {10 * ms, refused}, "192.0.2.1": {20 * ms, nil}},
			tried: []string{"2001:db8::1@0s", "192.0.2.1@10ms"},
			won:   "192.0.2.1", took: 30 * ms,
		},
		{
			name:  "addresses that come late are tried at once when others are slow",
			names: map[string]fakeLookup{"ip6": {400 * ms, []string{"2001:db8::1"}, nil}, "ip4": {0, []string{"192.0.2.1"}, nil}},
			hosts: map[string]fakeHost{"2001:db8::1": {10 * ms, nil}},
			tried: []string{"192.0.2.1@50ms", "2001:db8::1@400ms"},
			won:   "2001:db8::1", took: 410 * ms,
		},
		{
			name:  "two connect: the second is closed",
			names: map[string]fakeLookup{"ip6": {0, []string{"2001:db8::1"}, nil}, "ip4": {0, []string{"192.0.2.1"}, nil}},
			hosts: map[string]fakeHost{"2001:db8::1": {300 * ms, nil}, "192.0.2.1": {50 * ms, nil}},
			tried: []string{"2001:db8::1@0s", "192.0.2.1@250ms"},
			took:  300 * ms,
		},
		{
			name:  "all fail",
			names: map[string]fakeLookup{"ip6": {0, []string{"2001:db8::1"}, nil}, "ip4": {0, nil, noDNS}},
			hosts: map[string]fakeHost{"2001:db8::1": {10 * ms, refused}},
			tried: []string{"2001:db8::1@0s"},
			errs:  []string{"no name server", "refused"}, took: 10 * ms,
		},
		{
			name: "no addresses",
			errs: []string{"no addresses"},
		},
		{
			name:  "nothing answers",
			names: map[string]fakeLookup{"ip4": {0, []string{"192.0.2.1"}, nil}},
			tried: []string{"192.0.2.1@0s"},
			errs:  []string{"deadline exceeded"}, took: 10 * time.Second,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeNet{names: tt.names, hosts: tt.hosts, began: time.Now()}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				conn, err := racer{f.lookup, f.dial}.connect(ctx, "relay.example", 9000)
				if took := time.Since(f.began); took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
				if !slices.Equal(f.tried, tt.tried) {
					t.Errorf("tried %v, want %v", f.tried, tt.tried)
				}
				for _, want := range tt.errs {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("error %v does not tell of %q", err, want)
					}
				}
				if len(tt.errs) > 0 {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if won := conn.(*fakeConn).from; tt.won != "" && won != tt.won {
					t.Errorf("connected to %s, want %s", won, tt.won)
				}
				if f.open != 1 {
					t.Errorf("%d connections are open, want the one", f.open)
				}
			})
		})
	}
}
