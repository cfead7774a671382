//go:build !linux

package netlab

// Lab is a test world; there is none on this system.
type Lab struct{}

// New skips the test, or fails it where it has to run: see Need.
func New(t T) *Lab {
	t.Helper()
	Need(t, false, "netlab needs Linux")
	return nil
}
