package netlab

import "os"

// Need skips the test for reason unless ok. Where MESHNET_CI=1 is set a missing need is a failure instead: there
// every test has to run, and one that skips itself would be silence taken for success.
func Need(t T, ok bool, reason string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("MESHNET_CI") == "1":
		t.Fatalf("cannot run: %s", reason)
	default:
		t.Skipf("skipped: %s", reason)
	}
}
