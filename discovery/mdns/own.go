package mdns

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// ttl is the life of our records. RFC 6762 §10 has longer ones for PTR and TXT, but who vanished should be gone soon.
	ttl = 120 * time.Second
	// legacyTTL is the most that an answer to an ordinary resolver may say (RFC 6762 §6.7).
	legacyTTL = 10 * time.Second
	// knownPerQuery is how many known answers a query takes: together less than a datagram of 1500 bytes.
	knownPerQuery = 36
)

// set says which of our records on an interface.
type set uint8

const (
	setType set = 1 << iota // the service's PTR to the instance: shared with all other instances
	setMeta                 // the PTR to the service, for those who ask for all services there are
	setSRV
	setTXT
	setA
	setAAAA
	setNoMore     // NSEC: the instance has SRV and TXT only
	setNoMoreHost // NSEC: the host has addresses only, of the families that it has

	setAddrs  = setA | setAAAA
	setShared = setType | setMeta
	setAll    = setType | setSRV | setTXT | setAddrs // what is announced
	setEnds   = setNoMore | setNoMoreHost
)

// own is what is announced on one interface. A value; immutable but for its owner, the face.
type own struct {
	label string
	port  uint16
	tag   [8]byte
	addrs []netip.Addr
}

func newLabel() string {
	var b [labelSize / 2]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (o *own) instance() string { return o.label + "." + serviceName }
func (o *own) host() string     { return o.label + ".local." }

// asked are the records that answer a question.
func (o *own) asked(q question) set {
	pick := func(t uint16, s set) set {
		if q.qtype == t || q.qtype == dns.TypeANY {
			return s
		}
		return 0
	}
	switch q.name {
	case serviceName:
		return pick(dns.TypePTR, setType)
	case metaName:
		return pick(dns.TypePTR, setMeta)
	case o.instance():
		if s := pick(dns.TypeSRV, setSRV) | pick(dns.TypeTXT, setTXT); s != 0 {
			return s
		}
		return setNoMore
	case o.host():
		if s := o.present(pick(dns.TypeA, setA) | pick(dns.TypeAAAA, setAAAA)); s != 0 {
			return s
		}
		return setNoMoreHost
	}
	return 0
}

// present is s without addresses of a family that the interface has none of.
func (o *own) present(s set) set {
	var has set
	for _, a := range o.addrs {
		if a.Is4() {
			has |= setA
		} else {
			has |= setAAAA
		}
	}
	return s &^ (setAddrs &^ has)
}

// additional are the records that go along with an answer, so that the asker need not ask again.
func (s set) additional() set {
	switch {
	case s&(setType|setSRV|setTXT) != 0:
		return (setAll&^setType | setEnds) &^ s
	case s&setAddrs != 0:
		return (setAddrs | setNoMoreHost) &^ s
	}
	return 0
}

// records makes the records of a set, in class IN.
func (o *own) records(s set, life time.Duration) []dns.RR {
	head := func(name string, t uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: uint32(life / time.Second)}
	}
	var rrs []dns.RR
	if s&setType != 0 {
		rrs = append(rrs, &dns.PTR{Hdr: head(serviceName, dns.TypePTR), Ptr: o.instance()})
	}
	if s&setMeta != 0 {
		rrs = append(rrs, &dns.PTR{Hdr: head(metaName, dns.TypePTR), Ptr: serviceName})
	}
	if s&setSRV != 0 {
		rrs = append(rrs, &dns.SRV{Hdr: head(o.instance(), dns.TypeSRV), Port: o.port, Target: o.host()})
	}
	if s&setTXT != 0 {
		txt := []string{"v=1", "t=" + hex.EncodeToString(o.tag[:])}
		rrs = append(rrs, &dns.TXT{Hdr: head(o.instance(), dns.TypeTXT), Txt: txt})
	}
	for _, a := range o.addrs {
		switch {
		case a.Is4() && s&setA != 0:
			rrs = append(rrs, &dns.A{Hdr: head(o.host(), dns.TypeA), A: a.AsSlice()})
		case a.Is6() && s&setAAAA != 0:
			rrs = append(rrs, &dns.AAAA{Hdr: head(o.host(), dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	end := func(name string, types ...uint16) {
		rrs = append(rrs, &dns.NSEC{Hdr: head(name, dns.TypeNSEC), NextDomain: name, TypeBitMap: types})
	}
	if s&setNoMore != 0 {
		end(o.instance(), dns.TypeTXT, dns.TypeSRV)
	}
	if s&setNoMoreHost != 0 {
		end(o.host(), o.families()...)
	}
	return rrs
}

// families are the types of address that the interface has.
func (o *own) families() []uint16 {
	var types []uint16
	if o.present(setA) != 0 {
		types = append(types, dns.TypeA)
	}
	if o.present(setAAAA) != 0 {
		types = append(types, dns.TypeAAAA)
	}
	return types
}

// unknown is s without what an asker told that it knows already, and will for half of its life (RFC 6762 §7.1).
func (o *own) unknown(s set, known []dns.RR) set {
	if len(known) == 0 {
		return s
	}
	left := s
	for one := set(1); one != 0; one <<= 1 {
		rrs := o.records(s&one, ttl)
		missing := len(rrs) == 0
		for _, rr := range rrs {
			missing = missing || !holds(known, rr)
		}
		if !missing {
			left &^= one
		}
	}
	return left
}

func holds(known []dns.RR, rr dns.RR) bool {
	for _, k := range known {
		if k.Header().Ttl >= uint32(ttl/time.Second)/2 && dns.IsDuplicate(k, rr) {
			return true
		}
	}
	return false
}

// announcement tells everything, unasked.
func (o *own) announcement() []byte { return o.response(setAll, setEnds, ttl) }

// goodbye withdraws everything.
func (o *own) goodbye() []byte { return o.response(setAll, 0, 0) }

// answer answers by multicast, or a multicast DNS speaker that asked for it by unicast.
func (o *own) answer(s set) []byte { return o.response(s, s.additional(), ttl) }

func (o *own) response(answer, extra set, life time.Duration) []byte {
	m := new(dns.Msg)
	m.Answer, m.Extra = o.records(answer, life), o.records(o.present(extra), life)
	for _, rrs := range [][]dns.RR{m.Answer, m.Extra} {
		for _, rr := range rrs {
			if h := rr.Header(); h.Rrtype != dns.TypePTR {
				h.Class |= topBit
			}
		}
	}
	return pack(m)
}

// legacy answers an ordinary resolver, which knows nothing of multicast DNS, as a DNS server would (RFC 6762 §6.7).
func (o *own) legacy(id uint16, q question, s set) []byte {
	m := new(dns.Msg)
	m.Id = id
	m.Question = []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}}
	m.Answer, m.Extra = o.records(s&^setEnds, legacyTTL), o.records(s.additional()&^setEnds, legacyTTL)
	return pack(m)
}

func pack(m *dns.Msg) []byte {
	m.Response, m.Authoritative, m.Compress = true, true, true
	b, err := m.Pack()
	if err != nil {
		panic("mdns: pack own records: " + err.Error()) // their names and sizes are ours
	}
	return b
}

// knownAnswer is an instance that a query need not be answered with.
type knownAnswer struct {
	label string
	left  time.Duration // of its life
}

// queries ask for the instances of the service. Known answers that do not fit go into further messages.
func queries(known []knownAnswer) [][]byte {
	var out [][]byte
	m := &dns.Msg{Question: []dns.Question{{Name: serviceName, Qtype: dns.TypePTR, Qclass: dns.ClassINET}}}
	for {
		n := min(len(known), knownPerQuery)
		for _, k := range known[:n] {
			head := dns.RR_Header{Name: serviceName, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: uint32(k.left / time.Second)}
			m.Answer = append(m.Answer, &dns.PTR{Hdr: head, Ptr: k.label + "." + serviceName})
		}
		known = known[n:]
		m.Truncated, m.Compress = len(known) > 0, true
		b, err := m.Pack()
		if err != nil {
			panic("mdns: pack query: " + err.Error())
		}
		out = append(out, b)
		if len(known) == 0 {
			return out
		}
		m = new(dns.Msg)
	}
}
