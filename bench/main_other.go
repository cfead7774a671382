//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: it needs Linux: network namespaces, veth and /dev/net/tun")
	os.Exit(1)
}
