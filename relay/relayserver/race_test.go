//go:build race

package relayserver_test

// raceEnabled: the race detector allocates by itself.
const raceEnabled = true
