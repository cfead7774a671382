package main

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/tunnel/wg"
)

const (
	lookupTime     = 300 * time.Millisecond // of a loop that is timed
	lookupSessions = 2000
)

var errLookup = errors.New("a lookup found nothing")

// addresses are all of a crowd's in the network: three for each member.
func (c *crowd) addresses() []netip.Addr {
	var all []netip.Addr
	for _, o := range c.others {
		id := o.id.ID()
		all = append(all, o.inner, netmap.IdentityAddr(c.network, id), netmap.ControlAddr(c.network, id))
	}
	return all
}

// routeLookup is how long it takes, in nanoseconds, to find who has an address, in a table like the tunnel's. Those of
// the addresses that want chooses are asked for, in random order.
func routeLookup(addrs []netip.Addr, want func(netip.Addr) bool, length time.Duration) (float64, error) {
	table := new(bart.Table[*netip.Addr])
	for i := range addrs {
		table.Insert(netip.PrefixFrom(addrs[i], addrs[i].BitLen()), &addrs[i])
	}
	asked := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !want(a) })
	if len(asked) == 0 {
		return 0, errLookup
	}
	rand.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
	found := true
	ns := timed(length, func(i int) {
		p, ok := table.Lookup(asked[i%len(asked)])
		found = found && ok && p != nil
	})
	if !found {
		return 0, errLookup
	}
	return ns, nil
}

// sessionLookup is how long it takes, in nanoseconds, to find the session of a datagram and to let go of it, among a
// number of sessions. Datagrams come in random order.
func sessionLookup(sessions int, length time.Duration) (float64, error) {
	now := time.Now()
	node, err := wg.New(identity.NewSecret(), now, rand.New(rand.NewChaCha8(identity.NewSecret())))
	if err != nil {
		return 0, err
	}
	defer node.Close()
	datagrams := make([][]byte, 0, sessions)
	for range sessions {
		d, err := sessionWith(node, now)
		if err != nil {
			return 0, err
		}
		datagrams = append(datagrams, d)
	}
	rand.Shuffle(sessions, func(i, j int) { datagrams[i], datagrams[j] = datagrams[j], datagrams[i] })
	table, at, found := node.Table(), node.Clock().At(now), true
	ns := timed(length, func(i int) {
		s := table.Acquire(datagrams[i%sessions], at)
		if s == nil {
			found = false
			return
		}
		s.Release()
	})
	if !found {
		return 0, errLookup
	}
	return ns, nil
}

// sessionWith gives a machine one more session, with a new member, and returns a datagram under it.
func sessionWith(node *wg.Machine, now time.Time) ([]byte, error) {
	psk := identity.NewSecret()
	t, err := newTalker(identity.NewSecret(), node.Static().Public(), psk, now)
	if err != nil {
		return nil, err
	}
	side := &talker{machine: node, peer: wg.NewPeer(t.machine.Static().Public(), nil, node.Notes())}
	node.Add(side.peer, []identity.Secret{psk})
	for _, a := range t.machine.Renew(now, t.peer) {
		if a.Kind != wg.ActInitiate {
			continue
		}
		answers, _ := side.handshake(now, a.Message)
		for _, b := range answers {
			if b.Kind == wg.ActReply {
				t.handshake(now, b.Message)
			}
		}
	}
	return t.seal(now, nil)
}

// timed runs f again and again for about a time, and returns what one run takes in nanoseconds.
func timed(length time.Duration, f func(i int)) float64 {
	const chunk = 1 << 12 // runs between two looks at the clock
	n, start := 0, time.Now()
	for {
		for range chunk {
			f(n)
			n++
		}
		if took := time.Since(start); took >= length {
			return float64(took.Nanoseconds()) / float64(n)
		}
	}
}
