//go:build race

package control

// raceEnabled: the race detector allocates on its own.
const raceEnabled = true
