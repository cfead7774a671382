package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	mtuDefault = "default"
	innerMTU   = 1280
	pingEvery  = 10 * time.Millisecond
)

// plan is what a run does, and for how long. Immutable.
type plan struct {
	tests    []string
	carriers []string // empty: all that there are
	mtus     []string // "1280" and the like, or "default"
	rounds   int

	warm     time.Duration // before each window
	tcp, udp time.Duration // windows
	overload int           // datagrams of 200 bytes a second that are offered where it is to be too much
	pings    int           // echoes, idle and again under load
	patience time.Duration // for a machine that is busy with something else, in all
	saturate time.Duration // memory: under load
	rest     time.Duration // memory: idle after it
	flame    string        // file for a flame graph; "": none
}

// fullPlan is the default; quick is for development.
func fullPlan() plan {
	return plan{
		tests: tests(), mtus: []string{strconv.Itoa(innerMTU)}, rounds: 5,
		warm: 500 * time.Millisecond, tcp: 2500 * time.Millisecond, udp: 2 * time.Second, pings: 300,
		overload: 600_000, patience: 2 * time.Minute,
		saturate: 20 * time.Second, rest: 30 * time.Second,
	}
}

func quickPlan() plan {
	p := fullPlan()
	p.tests, p.rounds = []string{"tcp1", "udp200", "ping", "flood"}, 2
	p.warm, p.tcp, p.udp, p.pings = 300*time.Millisecond, time.Second, time.Second, 100
	p.saturate, p.rest = 3*time.Second, 3*time.Second
	p.patience = 20 * time.Second
	return p
}

// choose splits a list given on the command line and refuses what is not among all. The order is that of all.
func choose(list string, all []string) ([]string, error) {
	var want []string
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(all, word) {
			return nil, fmt.Errorf("%q is none of %s", word, strings.Join(all, ", "))
		}
		want = append(want, word)
	}
	var chosen []string
	for _, a := range all {
		if slices.Contains(want, a) {
			chosen = append(chosen, a)
		}
	}
	return chosen, nil
}

// parseMTU reads an inner MTU; 0 means every carrier's own.
func parseMTU(text string) (int, error) {
	if text == mtuDefault {
		return 0, nil
	}
	mtu, err := strconv.Atoi(text)
	if err != nil || mtu < 1280 || mtu > 1420 {
		return 0, fmt.Errorf("MTU %q: want %s or 1280 to 1420", text, mtuDefault)
	}
	return mtu, nil
}

// overloadRate is what is offered of datagrams of a size: more than a VPN bears, and little enough that the sender
// leaves the daemons their share of two cores. Large ones are dearer to the kernel, too.
func (p plan) overloadRate(size int) int {
	if size > 1000 {
		return p.overload / 2
	}
	return p.overload
}

// has reports whether a test is to be run.
func (p plan) has(test string) bool { return slices.Contains(p.tests, test) }

// estimate is how long a run takes with a number of carriers, some of which carry TCP only or have no daemons.
func (p plan) estimate(carriers, tcpOnly, bare int) time.Duration {
	const around = 600 * time.Millisecond // look for other load, start and end the workers
	var tcp, other, once time.Duration
	for _, t := range p.tests {
		switch {
		case t == "memory":
			once = time.Duration(carriers-bare)*(p.warm+p.saturate+around) + p.rest
		case strings.HasPrefix(t, "tcp"):
			tcp += around + p.warm + p.tcp
		case strings.HasPrefix(t, "udp"):
			other += 2*(around+p.warm+p.udp+udpQuietTime) + 2*udpTailTime
		case t == "flood": // of one carrier
			once += time.Duration(p.rounds) * (2*(around+p.warm+p.tcp) + time.Duration(len(floodKinds()))*(around+p.warm+p.udp))
		case t == "ping":
			other += 2*(around+time.Duration(p.pings)*pingEvery) + p.warm
		}
	}
	round := time.Duration(carriers)*tcp + time.Duration(carriers-tcpOnly)*other
	const setup = 3 * time.Second // a carrier, builds included
	table := time.Duration(carriers)*setup + time.Duration(p.rounds)*round + once
	all := time.Duration(len(p.mtus)) * table
	if p.flame != "" {
		all += flameTime + flameFold
	}
	return all
}

// Parts of a flame graph.
const (
	flameTime = 5 * time.Second  // of samples
	flameFold = 12 * time.Second // to look up the names
)

// Parts of a UDP measurement beside its window.
const (
	udpQuietTime = 300 * time.Millisecond // without a datagram: no more will come
	udpTailTime  = 200 * time.Millisecond // sent on behind the window
)
