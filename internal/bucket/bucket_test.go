package bucket

import (
	"net/netip"
	"testing"
	"time"
)

func TestBucketRefills(t *testing.T) {
	var b Bucket
	now := time.Unix(1000, 0)
	for i := range 5 {
		if !b.Take(now, 10, 5) {
			t.Fatalf("token %d of a full bucket was refused", i)
		}
	}
	if b.Take(now, 10, 5) {
		t.Fatal("a sixth token came out of a bucket of five")
	}
	if !b.Take(now.Add(100*time.Millisecond), 10, 5) {
		t.Fatal("no token after the time of one")
	}
	if b.Take(now.Add(-time.Hour), 10, 5) {
		t.Fatal("a clock that went back filled the bucket")
	}
}

func TestPrefixesAreApartAndBounded(t *testing.T) {
	p := Prefixes{Rate: 1, Burst: 1}
	now := time.Unix(1000, 0)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.1")
	if !p.Take(now, a) || p.Take(now, a.Next()) || !p.Take(now, b) {
		t.Fatal("a /24 must share one bucket and only that")
	}
	addr := netip.MustParseAddr("11.0.0.0").As4()
	for i := range 3 * maxPrefixes {
		addr[1], addr[2] = byte(i>>8), byte(i)
		p.Take(now, netip.AddrFrom4(addr))
	}
	if len(p.buckets) > maxPrefixes {
		t.Fatalf("%d prefixes remembered, want at most %d", len(p.buckets), maxPrefixes)
	}
	p.Take(now.Add(time.Minute), netip.MustParseAddr("12.0.0.1"))
	if len(p.buckets) > 2 {
		t.Fatalf("%d prefixes remembered after all drained", len(p.buckets))
	}
}
