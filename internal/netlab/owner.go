package netlab

// T is the test, or the program, that a lab belongs to; testing.TB is one. Fatalf and Skipf do not return.
type T interface {
	Helper()
	Cleanup(f func()) // runs f at the end, the last one first
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	ArtifactDir() string // takes the output of programs when it failed
}
