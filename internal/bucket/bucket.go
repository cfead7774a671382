package bucket

import (
	"net/netip"
	"time"
)

// Bucket holds up to Burst tokens and gains Rate tokens a second. The zero Bucket is full.
type Bucket struct {
	used float64 // tokens taken and not yet regained
	last time.Time
}

// Take takes a token at now, or reports that there is none.
func (b *Bucket) Take(now time.Time, rate, burst float64) bool {
	if passed := now.Sub(b.last).Seconds(); passed > 0 {
		b.used = max(0, b.used-passed*rate)
		b.last = now
	}
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}

// idle reports whether the bucket is as good as new.
func (b *Bucket) idle(now time.Time, rate float64) bool {
	return b.used-now.Sub(b.last).Seconds()*rate <= 0
}

// maxPrefixes bounds what a Prefixes remembers. Above it, everybody shares one bucket until others have drained.
const maxPrefixes = 4096

// Prefixes is one bucket for each IPv4 /24 and IPv6 /56.
type Prefixes struct {
	Rate, Burst float64
	buckets     map[netip.Prefix]*Bucket
	rest        Bucket
}

// Take takes a token of the prefix that addr lies in.
func (p *Prefixes) Take(now time.Time, addr netip.Addr) bool {
	prefix := PrefixOf(addr)
	b := p.buckets[prefix]
	if b == nil {
		if len(p.buckets) >= maxPrefixes {
			p.sweep(now)
		}
		if len(p.buckets) >= maxPrefixes {
			return p.rest.Take(now, p.Rate, p.Burst)
		}
		if p.buckets == nil {
			p.buckets = make(map[netip.Prefix]*Bucket)
		}
		b = new(Bucket)
		p.buckets[prefix] = b
	}
	return b.Take(now, p.Rate, p.Burst)
}

func (p *Prefixes) sweep(now time.Time) {
	for prefix, b := range p.buckets {
		if b.idle(now, p.Rate) {
			delete(p.buckets, prefix)
		}
	}
}

// PrefixOf is the /24 or /56 that one subscriber usually has.
func PrefixOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 56
	if addr.Is4() {
		bits = 24
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // the zero address: all of them share a bucket
	}
	return prefix
}
