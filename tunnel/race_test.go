//go:build race

package tunnel

// raceEnabled: the race detector makes sync.Pool forget at random.
const raceEnabled = true
