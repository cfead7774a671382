// Package e2e tests the whole program: the real binary on hosts that internal/netlab makes, with real TUNs and real
// networks between them. It has no code of its own besides its tests.
//
// Read first: world_linux_test.go, which builds the binary and starts nodes; then any of the tests.
package e2e
