//go:build !race

package magicsock

const raceEnabled = false
