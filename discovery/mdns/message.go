package mdns

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// Names are in lower case, and with the dot at the end, as package dns writes them.
	serviceName = "_meshnet._udp.local."
	metaName    = "_services._dns-sd._udp.local."

	maxMessage = 9000 // bytes, with headers (RFC 6762 §17)
	maxRecords = 64   // questions and records of a message that are looked at
	maxAddrs   = 16   // of an instance
	maxTold    = 16   // instances in a message; ours has one

	// topBit of a class asks for an answer by unicast (in a question) or says that other records of the name and type are
	// outdated (in a record); RFC 6762 §18.12, §18.13.
	topBit = 1 << 15

	labelSize = 16 // hex digits of an instance's label
)

var errMessage = errors.New("malformed message")

type question struct {
	name    string // lower case
	qtype   uint16
	unicast bool // an answer to the asker alone is wanted
}

// message is what is looked at of a datagram.
type message struct {
	id                  uint16
	response, truncated bool
	questions           []question
	records             []dns.RR // A, AAAA, PTR, SRV and TXT of class IN; names in lower case, the class without topBit
	known               int      // how many of the records are in the answer section
}

// readMessage reads a message, as far as maxRecords goes. Anything unreadable up to there is errMessage, and so is what
// RFC 6762 §18 has one ignore: opcodes and response codes other than 0.
func readMessage(b []byte) (*message, error) {
	const qr, opcode, tc, rcode = 1 << 15, 15 << 11, 1 << 9, 15
	if len(b) < 12 || len(b) > maxMessage {
		return nil, errMessage
	}
	flags := binary.BigEndian.Uint16(b[2:])
	if flags&(opcode|rcode) != 0 {
		return nil, errMessage
	}
	m := &message{id: binary.BigEndian.Uint16(b), response: flags&qr != 0, truncated: flags&tc != 0}
	count := func(section int) int { return int(binary.BigEndian.Uint16(b[4+2*section:])) }
	questions, answers, others := count(0), count(1), count(2)+count(3)
	off, left := 12, maxRecords
	var err error
	for ; questions > 0 && left > 0; questions, left = questions-1, left-1 {
		if off, err = m.readQuestion(b, off); err != nil {
			return nil, err
		}
	}
	for ; answers > 0 && left > 0; answers, left = answers-1, left-1 {
		if off, err = m.readRecord(b, off); err != nil {
			return nil, err
		}
	}
	m.known = len(m.records)
	for ; others > 0 && left > 0; others, left = others-1, left-1 {
		if off, err = m.readRecord(b, off); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *message) readQuestion(b []byte, off int) (int, error) {
	name, off, err := dns.UnpackDomainName(b, off)
	if err != nil || off+4 > len(b) {
		return 0, errMessage
	}
	class := binary.BigEndian.Uint16(b[off+2:])
	if c := class &^ topBit; c == dns.ClassINET || c == dns.ClassANY {
		m.questions = append(m.questions, question{
			name: strings.ToLower(name), qtype: binary.BigEndian.Uint16(b[off:]), unicast: class&topBit != 0,
		})
	}
	return off + 4, nil
}

func (m *message) readRecord(b []byte, off int) (int, error) {
	name, off, err := dns.UnpackDomainName(b, off)
	if err != nil || off+10 > len(b) {
		return 0, errMessage
	}
	h := dns.RR_Header{
		Name:     name,
		Rrtype:   binary.BigEndian.Uint16(b[off:]),
		Class:    binary.BigEndian.Uint16(b[off+2:]) &^ topBit,
		Ttl:      binary.BigEndian.Uint32(b[off+4:]),
		Rdlength: binary.BigEndian.Uint16(b[off+8:]),
	}
	off += 10
	end := off + int(h.Rdlength)
	if end > len(b) {
		return 0, errMessage
	}
	if h.Class != dns.ClassINET {
		return end, nil
	}
	switch h.Rrtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeSRV, dns.TypeTXT:
	default:
		return end, nil // not looked into
	}
	h.Name = strings.ToLower(name)
	rr, read, err := dns.UnpackRRWithHeader(h, b[:end], off)
	if err != nil || read != end {
		return 0, errMessage
	}
	switch rr := rr.(type) {
	case *dns.PTR:
		rr.Ptr = strings.ToLower(rr.Ptr)
	case *dns.SRV:
		rr.Target = strings.ToLower(rr.Target)
	}
	m.records = append(m.records, rr)
	return end, nil
}

// asks reports whether everybody on the link is asked for the instances of the service.
func (m *message) asks() bool {
	for _, q := range m.questions {
		if q.name == serviceName && !q.unicast && (q.qtype == dns.TypePTR || q.qtype == dns.TypeANY) {
			return true
		}
	}
	return false
}

// sighting is what a message says about one instance.
type sighting struct {
	name  string
	label string // of the name, without the service's
	gone  bool   // it says goodbye; the rest need not be there
	host  string
	port  uint16
	addrs []netip.Addr // as told, at most maxAddrs
	tag   [8]byte
	tags  bool          // tag was there
	ttl   time.Duration // the shortest of its records'
}

// whole reports whether all records were there.
func (s *sighting) whole() bool { return s.tags && s.port != 0 && len(s.addrs) > 0 }

// sightings are the instances that a response tells of.
func (m *message) sightings() []sighting {
	var all []sighting
	for _, rr := range m.records {
		all = addInstance(all, rr)
	}
	for i := range all {
		for _, rr := range m.records {
			all[i].add(rr)
		}
	}
	return all
}

// addInstance adds the instance that a SRV record, or the withdrawal of a PTR record, is about.
func addInstance(all []sighting, rr dns.RR) []sighting {
	h, name := rr.Header(), ""
	srv, ok := rr.(*dns.SRV)
	if ok {
		name = h.Name
	} else if ptr, ok := rr.(*dns.PTR); ok && h.Name == serviceName && h.Ttl == 0 {
		name = ptr.Ptr
	}
	label, ok := instanceOf(name)
	if !ok {
		return all
	}
	i := 0
	for i < len(all) && all[i].label != label {
		i++
	}
	if i == maxTold {
		return all
	}
	if i == len(all) {
		all = append(all, sighting{name: name, label: label, ttl: time.Duration(h.Ttl) * time.Second})
	}
	if h.Ttl == 0 {
		all[i].gone = true
	} else if srv != nil {
		all[i].host, all[i].port = srv.Target, srv.Port
	}
	return all
}

// add adds what a record other than SRV says about the instance.
func (s *sighting) add(rr dns.RR) {
	h := rr.Header()
	ttl := time.Duration(h.Ttl) * time.Second
	switch rr := rr.(type) {
	case *dns.TXT:
		if h.Name != s.name {
			return
		}
		s.tag, s.tags = readTag(rr.Txt)
	case *dns.A:
		if h.Name != s.host || ttl == 0 {
			return
		}
		s.addAddr(rr.A)
	case *dns.AAAA:
		if h.Name != s.host || ttl == 0 {
			return
		}
		s.addAddr(rr.AAAA)
	default:
		return
	}
	s.ttl = min(s.ttl, ttl)
}

func (s *sighting) addAddr(ip []byte) {
	addr, ok := netip.AddrFromSlice(ip)
	if ok && len(s.addrs) < maxAddrs {
		s.addrs = append(s.addrs, addr)
	}
}

// readTag reads the strings of a TXT record: v=1 and t=, the first of each (RFC 6763 §6.4), whatever else there is.
func readTag(txt []string) (tag [8]byte, ok bool) {
	var v, t string
	for _, s := range txt {
		key, value, _ := strings.Cut(s, "=")
		switch strings.ToLower(key) {
		case "v":
			if v == "" {
				v = value
			}
		case "t":
			if t == "" {
				t = value
			}
		}
	}
	if v != "1" || len(t) != 2*len(tag) {
		return tag, false
	}
	_, err := hex.Decode(tag[:], []byte(t))
	return tag, err == nil
}

// instanceOf is the label of an instance of the service: lower-case hex, as ours are.
func instanceOf(name string) (label string, ok bool) {
	if len(name) != labelSize+1+len(serviceName) || name[labelSize:] != "."+serviceName {
		return "", false
	}
	label = name[:labelSize]
	return label, strings.Trim(label, "0123456789abcdef") == ""
}
