package relaytest

import (
	"context"
	"testing"

	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// Relay is a running relay, as its clients see it.
type Relay struct {
	Server *relayserver.Server
	Dial   func(context.Context) (relay.Stream, error)
}

// Start starts a relay, which the test's end stops.
type Start func(t *testing.T, cfg relayserver.Config) Relay

// Run has everything done that a relay has to do, each with a relay of its own.
func Run(t *testing.T, start Start) {
	cases := map[string]func(*testing.T, Start){
		"carries":       testCarries,
		"large batches": testLargeBatches,
		"all sizes":     testAllSizes,
		"unknown node":  testUnknownNode,
		"node left":     testNodeLeft,
		"lengths":       testLengths,
		"malformed":     testMalformed,
		"unknown types": testUnknownTypes,
		"garbage":       testGarbage,
		"pings":         testPings,
		"stuck client":  testStuckClient,
		"drops oldest":  testDropsOldest,
		"fair":          testFair,
		"rate":          testRate,
		"duplicate key": testDuplicateKey,
		"restart":       testRestart,
		"passes":        testPasses,
		"wrong proof":   testWrongProof,
		"wrong hello":   testWrongHello,
		"full":          testFull,
		"counts":        testCounts,
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) { f(t, start) })
	}
}
