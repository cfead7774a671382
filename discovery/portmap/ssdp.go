package portmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"
)

const (
	ssdpPort     = 1900
	ssdpWait     = 2 * time.Second
	maxLocations = 4 // of one router, all of which are looked at
)

// ssdpGroup is where every UPnP device listens.
var ssdpGroup = netip.MustParseAddr("239.255.255.250")

// The kinds of device that are searched for.
var ssdpTargets = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
}

// ssdpSearch is an M-SEARCH request (UPnP Device Architecture 1.1 §1.3.2).
func ssdpSearch(target string) []byte {
	return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: " + target +
		"\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\r\n")
}

// parseSSDP reads an answer to a search and returns where the device describes itself: on the gateway, by plain HTTP,
// under a literal address. It fails with errAnswer.
func parseSSDP(pkt []byte, gw netip.Addr) (*url.URL, error) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(pkt)), nil)
	if err != nil {
		return nil, errAnswer
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errAnswer
	}
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || !onGateway(u, gw) {
		return nil, errAnswer
	}
	return u, nil
}

// onGateway reports whether a URL leads to the gateway itself.
func onGateway(u *url.URL, gw netip.Addr) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip == gw && u.Scheme == "http" && u.User == nil
}

// locations searches for the gateway's descriptions of itself. It takes two seconds, or half a second from the first
// answer.
func (m *Mapper) locations(ctx context.Context, gw Gateway) []*url.URL {
	pc, err := m.cfg.Listen("udp4", netip.AddrPortFrom(gw.Self, 0).String())
	if err != nil {
		return nil
	}
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	now := time.Now()
	end := now.Add(ssdpWait)
	again := now
	var found []*url.URL
	buf := make([]byte, 2048)
	for read := 0; read < maxAnswers && now.Before(end) && ctx.Err() == nil; now = time.Now() {
		if !now.Before(again) && len(found) == 0 {
			again = now.Add(ssdpWait / 3)
			search(pc, gw)
		}
		wake := end
		if len(found) == 0 && again.Before(end) {
			wake = again
		}
		if pc.SetReadDeadline(wake) != nil {
			break
		}
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		read++
		if err != nil || addrPort(from).Addr() != gw.Addr {
			continue
		}
		u, err := parseSSDP(buf[:n], gw.Addr)
		known := slices.ContainsFunc(found, func(f *url.URL) bool { return err == nil && f.String() == u.String() })
		if err != nil || known || len(found) == maxLocations {
			continue
		}
		found = append(found, u)
		if e := now.Add(ssdpWait / 4); e.Before(end) {
			end = e
		}
	}
	return found
}

// search asks everybody, and the gateway alone: not every router lets multicast through between wired and wireless.
func search(pc net.PacketConn, gw Gateway) {
	for _, to := range []netip.Addr{ssdpGroup, gw.Addr} {
		for _, target := range ssdpTargets {
			// What is not sent is sent again, or not answered.
			_, _ = pc.WriteTo(ssdpSearch(target), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, ssdpPort)))
		}
	}
}
