package portmap

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// Laid out by hand from RFC 6887 figures 2, 3, 9 and 10, and RFC 6886 §3.2 and §3.3.
const (
	pcpAnnounceReq = "02000000 00000000 00000000000000000000ffffc0a80102"
	pcpMapReq      = "02010000 00001c20 00000000000000000000ffffc0a80102" +
		"000102030405060708090a0b 11000000 a35c a35c 00000000000000000000ffff00000000"
	pcpMapResp = "02810000 00000e10 0000002a 000000000000000000000000" +
		"000102030405060708090a0b 11000000 a35c 1388 00000000000000000000ffff05050501"
	pcpRefused   = "02810002 0000001e 0000002a 000000000000000000000000"
	pmpMapReq    = "00010000 a35c a35c 00001c20"
	pmpMapResp   = "00810000 0000002a a35c 1388 00000e10"
	pmpAddrResp  = "00800000 0000002a 05050501"
	pmpVersionNo = "00810001 0000002a"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRequests(t *testing.T) {
	nonce := [12]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"pcp announce", pcpAnnounceRequest(self), pcpAnnounceReq},
		{"pcp map", pcpMapRequest(self, nonce, 41820, netip.AddrPortFrom(netip.Addr{}, 41820), 7200), pcpMapReq},
		{"nat-pmp address", pmpAddressRequest(), "0000"},
		{"nat-pmp map", pmpMapRequest(41820, 41820, 7200), pmpMapReq},
	} {
		if want := unhex(t, tt.want); !bytes.Equal(tt.got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", tt.name, tt.got, want)
		}
	}
}

func TestParsePCP(t *testing.T) {
	nonce := [12]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	got, err := parsePCP(unhex(t, pcpMapResp))
	want := pcpAnswer{
		opcode: pcpMap, lifetime: 3600, epoch: 42, nonce: nonce, port: 41820, external: netip.MustParseAddrPort("5.5.5.1:5000"),
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := parsePCP(unhex(t, pcpRefused)); err != nil || got.result != 2 || got.lifetime != 30 {
		t.Errorf("refusal: %+v, %v", got, err)
	}
	for _, bad := range []string{
		"", "02", pcpMapReq, pcpAnnounceReq, pmpMapResp, pmpVersionNo, pcpMapResp + "00",
		strings.Replace(pcpMapResp, "0281", "0282", 1), // PEER
		strings.Replace(pcpMapResp, "0281", "0181", 1), // NAT-PMP's successor that never was
		strings.Replace(pcpMapResp, "11000000", "06000000", 1),
	} {
		if got, err := parsePCP(unhex(t, bad)); err != errAnswer {
			t.Errorf("%q: got %+v, %v", bad, got, err)
		}
	}
	for n := range 15 {
		if _, err := parsePCP(unhex(t, pcpMapResp)[:4*n]); err != errAnswer {
			t.Errorf("%d bytes: no error", 4*n)
		}
	}
}

func TestParsePMP(t *testing.T) {
	for _, tt := range []struct {
		pkt  string
		want pmpAnswer
	}{
		{pmpMapResp, pmpAnswer{opcode: pmpMapUDP, epoch: 42, port: 41820, outside: 5000, lifetime: 3600}},
		{pmpAddrResp, pmpAnswer{opcode: pmpAddress, epoch: 42, address: netip.MustParseAddr("5.5.5.1")}},
		{pmpVersionNo, pmpAnswer{opcode: 1, result: pmpUnsupportedVersion}},
	} {
		if got, err := parsePMP(unhex(t, tt.pkt)); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v", tt.pkt, got, err)
		}
	}
	for _, bad := range []string{"", "0081", "000000", pmpMapReq, pcpMapResp, pmpMapResp + "00", pmpAddrResp + "00", "00820000 0000002a a35c 1388 00000e10"} {
		if got, err := parsePMP(unhex(t, bad)); err != errAnswer {
			t.Errorf("%q: got %+v, %v", bad, got, err)
		}
	}
}

func TestEpoch(t *testing.T) {
	start := time.Unix(1e6, 0)
	for _, tt := range []struct {
		name  string
		after time.Duration
		from  uint32
		to    uint32
		kept  bool
	}{
		{"in step", time.Hour, 100, 3700, true},
		{"at once", 0, 100, 100, true},
		{"a second back", time.Second, 100, 99, true},
		{"restarted", time.Hour, 10000, 5, false},
		{"restarted long ago", time.Hour, 100, 3000, false},
		{"slow by a sixteenth", 1600 * time.Second, 0, 1500, true},
		{"slow by an eighth", 1600 * time.Second, 0, 1400, false},
		{"fast by an eighth", 1600 * time.Second, 0, 1800, false},
		{"round the clock", time.Hour, 1<<32 - 1, 3599, false},
	} {
		var e epoch
		if !e.read(start, tt.from) {
			t.Errorf("%s: the first reading is not known", tt.name)
		}
		if got := e.read(start.Add(tt.after), tt.to); got != tt.kept {
			t.Errorf("%s: kept = %v", tt.name, got)
		}
	}
}

func TestParseRoutes(t *testing.T) {
	// As a little-endian machine prints it; the test's own machine may be another.
	le := func(a string) string {
		ip := netip.MustParseAddr(a).As4()
		n := fromNative(ip).As4()
		return strings.ToUpper(hex.EncodeToString(n[:]))
	}
	table := "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	for _, r := range [][4]string{ // iface, gateway, flags, metric
		{"wlan0", "192.168.1.1", "0003", "600"},
		{"eth0", "10.0.0.1", "0003", "100"},
		{"ppp0", "0.0.0.0", "0001", "0"},       // point to point
		{"eth1", "10.0.1.1", "0002", "1"},      // down
		{"eth2", "224.0.0.9", "0003", "1"},     // nonsense
		{"eth3", "10.0.3.1", "0003", "a lot"},  // nonsense
		{"eth4", "172.16.0.1", "0203", "4242"}, // reject bit of no concern
	} {
		table += fmt.Sprintf("%s\t00000000\t%s\t%s\t0\t0\t%s\t00000000\t0\t0\t0\n", r[0], le(r[1]), r[2], r[3])
	}
	table += fmt.Sprintf("eth0\t%s\t00000000\t0001\t0\t0\t100\t%s\t0\t0\t0\n", le("10.0.0.0"), le("255.255.255.0"))
	table += "eth0\t00000000\tXX\nshort\n\n"
	got := ""
	for _, r := range parseRoutes(strings.NewReader(table)) {
		got += fmt.Sprintf("%s %v %d; ", r.iface, r.via, r.metric)
	}
	if want := "eth0 10.0.0.1 100; wlan0 192.168.1.1 600; eth4 172.16.0.1 4242; "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func rootDesc(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/rootDesc.xml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A description as a real router gives it.
func TestParseDescription(t *testing.T) {
	base, err := url.Parse("http://192.168.1.1:5000/rootDesc.xml")
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseDescription(bytes.NewReader(rootDesc(t)), base, routerIP)
	if err != nil || len(all) != 1 {
		t.Fatalf("got %v, %v", all, err)
	}
	if d := all[0]; d.service != wanServices[0] || d.control.String() != "http://192.168.1.1:5000/ctl/IPConn" {
		t.Errorf("got %s at %s", d.service, d.control.String())
	}
	if _, err := parseDescription(bytes.NewReader(rootDesc(t)), base, self); err != errDescription {
		t.Errorf("as another gateway: %v", err)
	}
}

func FuzzPCP(f *testing.F) {
	for _, s := range []string{pcpMapResp, pcpRefused, pcpAnnounceReq, pmpMapResp, pmpAddrResp, pmpVersionNo} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		before := bytes.Clone(pkt)
		if a, err := parsePCP(pkt); err == nil && a.result == pcpSuccess && a.opcode == pcpMap {
			if a.port != uint16(pkt[40])<<8|uint16(pkt[41]) || a.external.Addr().Is4In6() {
				t.Fatalf("%+v of %x", a, pkt)
			}
		} else if err != nil && err != errAnswer {
			t.Fatal(err)
		}
		if _, err := parsePMP(pkt); err != nil && err != errAnswer {
			t.Fatal(err)
		}
		if _, err := parseAnnouncement(pkt); err != nil && err != errAnswer {
			t.Fatal(err)
		}
		if !bytes.Equal(before, pkt) {
			t.Fatal("the packet was changed")
		}
	})
}

func FuzzSSDP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nST: urn:x\r\nLOCATION: http://192.168.1.1:5000/root.xml\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nLocation: http://[::ffff:192.168.1.1]/\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		u, err := parseSSDP(pkt, routerIP)
		if err == nil && (u.Hostname() != "192.168.1.1" || u.Scheme != "http") || err != nil && err != errAnswer {
			t.Fatalf("%v, %v", u, err)
		}
	})
}

func FuzzDescription(f *testing.F) {
	f.Add(rootDesc(f))
	f.Add([]byte(`<root xmlns="urn:schemas-upnp-org:device-1-0"><URLBase>http://192.168.1.1/</URLBase><device><serviceList><service>` +
		`<serviceType>` + wanServices[1] + `</serviceType><controlURL>/x</controlURL></service></serviceList></device></root>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		base := &url.URL{Scheme: "http", Host: "192.168.1.1:5000", Path: "/root.xml"}
		all, err := parseDescription(bytes.NewReader(text), base, routerIP)
		if err == nil && len(all) == 0 || err != nil && err != errDescription {
			t.Fatalf("%v, %v", all, err)
		}
		for _, d := range all {
			if d.control.Hostname() != "192.168.1.1" || d.control.Scheme != "http" {
				t.Fatalf("leads to %s", d.control.String())
			}
		}
	})
}

// FuzzHTTP gives anything as the answer to a service's action.
func FuzzHTTP(f *testing.F) {
	ok := envelope(wanServices[1], "GetExternalIPAddress", "<NewExternalIPAddress>5.5.5.1</NewExternalIPAddress>")
	for _, body := range []string{ok, fault(725), fault(718), "", "<x"} {
		f.Add([]byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)))
	}
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: http://192.168.1.9/\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		dials := 0
		m := New(Config{
			Port: func() uint16 { return 1 },
			Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
				if dials++; addr != "192.168.1.1:5000" || dials > 10 {
					t.Fatalf("dial %d to %s", dials, addr)
				}
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					go func() { _, _ = io.Copy(io.Discard, theirs) }()
					_, _ = theirs.Write(answer)
				}()
				return ours, nil
			},
		})
		d := &igd{wanServices[1], url.URL{Scheme: "http", Host: "192.168.1.1:5000", Path: "/ctl"}}
		l, err := m.mapUPnP(t.Context(), Gateway{routerIP, self}, d, 41820, 41820)
		if (l == nil) == (err == nil) || l != nil && !l.external.Addr().Is4() {
			t.Fatalf("%+v, %v", l, err)
		}
	})
}
