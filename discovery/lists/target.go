package lists

import (
	"errors"
	"net/netip"
	"time"
)

const (
	maxPerName = 32               // addresses that are kept of a name; of one of the user's entries, all of an answer
	backoffMin = time.Second      // until a failed lookup is tried again, at the next round after it
	backoffMax = 30 * time.Second // less than the shortest pause between rounds in the end
)

// kind is where an entry comes from.
type kind int

const (
	kindStatic kind = iota
	kindFile
	kindList
	kinds
)

// The sources, as Found, OnFailed and Results name them.
const (
	SourceStatic = "static" // an entry of the user's
	SourceFile   = "file"
	SourceDNS    = "dns"
)

func (k kind) String() string {
	return [kinds]string{SourceStatic, SourceFile, SourceDNS}[k]
}

// Why an address is not handed out.
var (
	errNotUnicast = errors.New("not the address of a single host")
	errLoopback   = errors.New("a loopback address")
	errLinkLocal  = errors.New("a link-local address without its interface")
	errPortZero   = errors.New("port 0")
	errSelf       = errors.New("this node itself")
	errInside     = errors.New("inside the mesh, which is not reached yet")
)

// target is an entry with what is known of it. Owned by a loop.
type target struct {
	Entry
	kind  kind
	addrs []netip.AddrPort // in the order to ask them; also when the last lookup failed
	fit   []netip.AddrPort // those of them that may be handed out now
	given int              // of them handed out in this round

	busy      bool // a lookup is under way
	gone      bool // no list has it any more
	fails     int  // lookups in a row
	due       time.Time
	err       error
	tried, ok time.Time
}

// newTarget is a target that may be looked up at once, or is known already.
func newTarget(k kind, e Entry) *target {
	t := &target{Entry: e, kind: k}
	if e.IsLiteral() {
		a := netip.AddrPortFrom(e.Addr, e.Port)
		if t.err = usable(a, k != kindList); t.err == nil {
			t.addrs = []netip.AddrPort{a}
		}
	}
	return t
}

// named is the host as it is looked up. What DNS names is complete; what the user wrote may be short.
func (t *target) named() string {
	if t.kind == kindList {
		return t.Host + "."
	}
	return t.Host
}

// wants reports whether the host is to be looked up.
func (t *target) wants(now time.Time) bool {
	return !t.IsLiteral() && !t.busy && !now.Before(t.due)
}

// took takes the result of a lookup. After a failure the old addresses stay.
func (t *target) took(now time.Time, a answer, err error) {
	t.busy, t.tried = false, now
	var addrs []netip.AddrPort
	limit := maxPerName
	if t.kind == kindStatic {
		limit = maxRecords
	}
	for _, addr := range interleave(a.addrs) {
		ap := netip.AddrPortFrom(addr, t.Port)
		if e := usable(ap, t.kind != kindList && t.Host == "localhost"); e != nil {
			if err == nil && len(addrs) == 0 {
				err = e
			}
			continue
		}
		if len(addrs) < limit {
			addrs = append(addrs, ap)
		}
	}
	switch {
	case len(addrs) > 0:
		t.addrs, t.ok, t.err, t.fails, t.due = addrs, now, nil, 0, now.Add(a.ttl)
		return
	case err == nil:
		err = errNoData
	}
	t.err = err
	t.due = now.Add(backoff(t.fails))
	t.fails++
}

// backoff is the least time until the next try, after some failed before: 1, 2, 4 … 30 s.
func backoff(before int) time.Duration {
	return min(backoffMin<<min(before, 10), backoffMax)
}

// check finds which addresses are fit to be handed out now. It says how many are not.
func (t *target) check(now time.Time, unfit func(netip.AddrPort) error) (bad int) {
	t.fit = t.fit[:0]
	var why error
	for _, a := range t.addrs {
		if err := unfit(a); err != nil {
			why = err
			continue
		}
		t.fit = append(t.fit, a)
	}
	switch {
	case len(t.addrs) == 0:
		if t.IsLiteral() {
			t.tried = now
		}
	case len(t.fit) == 0:
		t.err = why
		if t.IsLiteral() {
			t.tried = now
		}
	case errors.Is(t.err, errSelf), errors.Is(t.err, errInside):
		t.err = nil
	}
	return len(t.addrs) - len(t.fit)
}

// result is the target as Results has it.
func (t *target) result() Result {
	r := Result{
		Entry: t.String(), Source: t.kind.String(), Addrs: append([]netip.AddrPort(nil), t.addrs...),
		LastTried: t.tried, LastOK: t.ok,
	}
	if t.err != nil {
		r.Err = t.err.Error()
		r.Stale = len(t.fit) > 0
	}
	return r
}

// usable says why an address is none that a member of another machine could have, or nothing. literal: the user wrote it
// so, and may mean this machine or this link.
func usable(a netip.AddrPort, literal bool) error {
	ip := a.Addr()
	switch {
	case a.Port() == 0:
		return errPortZero
	case !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast():
		return errNotUnicast
	case ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240): // this network, reserved, broadcast
		return errNotUnicast
	case ip.IsLoopback() && !literal:
		return errLoopback
	case ip.IsLinkLocalUnicast() && (!literal || ip.Is6() && ip.Zone() == ""):
		return errLinkLocal
	}
	return nil
}
