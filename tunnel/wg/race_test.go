//go:build race

package wg

// raceEnabled: the race detector allocates by itself.
const raceEnabled = true
