//go:build !race

package mdns

import (
	"testing"

	"github.com/miekg/dns"
)

// The race detector allocates.
func TestUnrelatedAllocs(t *testing.T) {
	data := ask(t, dns.ClassINET, nil, "_ipp._tcp.local. PTR", "a_printer._ipp._tcp.local. SRV")
	labels := []string{newLabel(), newLabel()}
	if n := testing.AllocsPerRun(100, func() { related(data, labels) }); n != 0 {
		t.Errorf("%v allocations per datagram about others", n)
	}
}
