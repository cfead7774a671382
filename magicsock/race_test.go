//go:build race

package magicsock

// raceEnabled: the race detector makes sync.Pool forget at random.
const raceEnabled = true
