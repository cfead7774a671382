//go:build !linux && !darwin

package relay

func limitUnsent(uintptr) {}
