package lists

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	udpSize     = 1232        // bytes of an answer by UDP: what passes everywhere unfragmented
	nextServer  = time.Second // after which the next server is asked too
	maxAttempts = 4           // at a lookup, over all servers; each with an id and a port of its own
	maxStrays   = 64          // datagrams that answer something else, at an attempt
)

// race asks the servers one after another, the next one a second after the last or once one failed, and the first again
// while any is silent, until one of them answers. Silence lasts until ctx ends. It returns after all that it asked ended.
func race(ctx context.Context, servers []netip.AddrPort,
	ask func(context.Context, netip.AddrPort) (*dns.Msg, error),
) (*dns.Msg, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		m   *dns.Msg
		err error
	}
	results := make(chan result)
	started, ended := 0, 0
	defer func() {
		cancel()
		for ; ended < started; ended++ {
			<-results
		}
	}()
	worst := errSilent
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			if started == maxAttempts {
				continue
			}
			server := servers[started%len(servers)]
			started++
			go func() {
				m, err := ask(ctx, server)
				results <- result{m, err}
			}()
			timer.Reset(nextServer)
		case r := <-results:
			ended++
			if r.err == nil || errors.Is(r.err, errNoName) {
				return r.m, r.err
			}
			if !errors.Is(r.err, errSilent) {
				worst = r.err
			}
			if ended == started && started >= min(len(servers), maxAttempts) {
				return nil, worst
			}
			if started < len(servers) {
				timer.Reset(0)
			}
		case <-ctx.Done():
			return nil, worst
		}
	}
}

// exchange asks one server one question: by UDP, and by TCP if the answer does not fit. It fails with what the server
// says, unless that is an answer.
func exchange(ctx context.Context, server netip.AddrPort, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m, err := converse(ctx, "udp", server, q.SetEdns0(udpSize, false))
	if err == nil && m.Rcode == dns.RcodeFormatError {
		q = new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype) // a server from before EDNS: RFC 6891 §7
		m, err = converse(ctx, "udp", server, q)
	}
	if err == nil && m.Truncated {
		m, err = converse(ctx, "tcp", server, q)
	}
	if err != nil {
		return nil, err
	}
	switch m.Rcode {
	case dns.RcodeSuccess:
		return m, nil
	case dns.RcodeNameError:
		return nil, errNoName
	case dns.RcodeServerFailure:
		return nil, errServFail
	case dns.RcodeRefused:
		return nil, errRefused
	}
	return nil, errRcode
}

// converse sends a question and reads until its answer is there or ctx ends.
func converse(ctx context.Context, network string, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, plain(err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := &dns.Conn{Conn: c, UDPSize: 4 * udpSize} // the buffer: some send more than they were told
	if err := conn.WriteMsg(q); err != nil {
		return nil, plain(err)
	}
	failed := errSilent
	for range maxStrays {
		m, err := conn.ReadMsg()
		if m != nil && answers(m, q) && (err == nil || m.Truncated) {
			return m, nil
		}
		if _, ok := errors.AsType[net.Error](err); ok && errors.Is(plain(err), errSilent) {
			return nil, failed
		} else if ok {
			return nil, plain(err)
		}
		if network == "tcp" {
			return nil, errMalformed // or hung up
		}
		failed = errMalformed // and not from the server, perhaps
	}
	return nil, failed
}

// answers reports whether m is an answer to q.
func answers(m, q *dns.Msg) bool {
	return m.Response && m.Id == q.Id && m.Opcode == q.Opcode && len(m.Question) == 1 &&
		strings.EqualFold(m.Question[0].Name, q.Question[0].Name) &&
		m.Question[0].Qtype == q.Question[0].Qtype && m.Question[0].Qclass == q.Question[0].Qclass
}
