package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshnet/meshnet"
)

var someHash = strings.Repeat("ab", 32)

// parse gives what `up` makes of arguments.
func parse(t *testing.T, args string, root bool) (meshnet.Config, error) {
	t.Helper()
	a := &app{host: host{os: "linux"}, from: map[string]string{}}
	cmd := a.upCommand()
	var got meshnet.Config
	var gotErr error
	flags := upFlagsOf(cmd)
	if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	got, gotErr = flags().config(cmd.Flags().Changed, root, func(host string) ([]netip.Addr, error) {
		if host == "named.example" {
			return []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.7"), netip.MustParseAddr("2001:db8::7")}, nil
		}
		return nil, errors.New("no such host")
	})
	return got, gotErr
}

// upFlagsOf reads the flags back, by the types they have.
func upFlagsOf(cmd *cobra.Command) func() upFlags {
	return func() upFlags {
		f := cmd.Flags()
		var u upFlags
		u.joinTimeout, _ = f.GetDuration("join-timeout")
		u.network, _ = f.GetString("network")
		u.cidr, _ = f.GetString("cidr")
		u.hostname, _ = f.GetString("hostname")
		u.userspace, _ = f.GetBool("userspace")
		u.tun, _ = f.GetString("tun")
		u.mtu, _ = f.GetInt("mtu")
		u.port, _ = f.GetUint16("port")
		u.advertise, _ = f.GetStringSlice("advertise")
		u.find = findFlagsOf(f)
		u.socks5, _ = f.GetString("socks5")
		u.httpProxy, _ = f.GetString("http-proxy")
		u.forwardInbound, _ = f.GetBool("forward-inbound")
		u.metrics, _ = f.GetString("metrics")
		u.paths = pathFlagsOf(f)
		return u
	}
}

// upFlagsOf's part about finding members.
func findFlagsOf(f *pflag.FlagSet) findFlags {
	var u findFlags
	u.bootstrap, _ = f.GetStringSlice("bootstrap")
	u.bootstrapFile, _ = f.GetString("bootstrap-file")
	u.bootstrapDNS, _ = f.GetString("bootstrap-dns")
	u.mdns, _ = f.GetBool("mdns")
	u.dht, _ = f.GetBool("dht")
	u.dhtBootstrap, _ = f.GetStringSlice("dht-bootstrap")
	return u
}

// upFlagsOf's part about paths.
func pathFlagsOf(f *pflag.FlagSet) pathFlags {
	var p pathFlags
	p.stun, _ = f.GetStringSlice("stun")
	p.portMap, _ = f.GetBool("portmap")
	p.relayServers, _ = f.GetStringSlice("relay-server")
	p.relayCA, _ = f.GetString("relay-ca")
	p.relay, _ = f.GetBool("relay")
	p.relayAddr, _ = f.GetString("relay-addr")
	p.relayPublic, _ = f.GetString("relay-public")
	p.relayTLSCert, _ = f.GetString("relay-tls-cert")
	p.relayTLSKey, _ = f.GetString("relay-tls-key")
	p.memberRelay, _ = f.GetString("member-relay")
	_ = p.memberRelayRate.Set(f.Lookup("member-relay-rate").Value.String())
	return p
}

func TestUpConfig(t *testing.T) {
	// base is what no flags mean for somebody without root.
	base := meshnet.Config{
		TUN: meshnet.TUNTry, MTU: 1280, Port: 41820, SOCKS5: "127.0.0.1:1080", HTTPProxy: "127.0.0.1:1081", ForwardInbound: true,
		MDNS: true, PortMap: true, MemberRelay: meshnet.MemberRelayAuto, MemberRelayRate: 2_500_000,
	}
	for _, tt := range []struct {
		args string
		root bool
		want func(c *meshnet.Config)
	}{
		{"", false, func(*meshnet.Config) {}},
		{"", true, func(*meshnet.Config) {}},
		{"--userspace", true, func(c *meshnet.Config) { c.TUN = meshnet.TUNOff }},
		{"--userspace", false, func(c *meshnet.Config) { c.TUN = meshnet.TUNOff }},
		{"--tun wg9", true, func(c *meshnet.Config) { c.TUN, c.Interface = meshnet.TUNRequire, "wg9" }},
		{"--tun wg9", false, func(c *meshnet.Config) { c.TUN, c.Interface = meshnet.TUNRequire, "wg9" }},
		{"--port 7", true, func(c *meshnet.Config) { c.Port, c.PortFixed = 7, true }},
		{"--port 0", true, func(c *meshnet.Config) { c.Port, c.PortFixed = 0, true }},
		{"--port 41820", true, func(c *meshnet.Config) { c.PortFixed = true }},
		{"--mtu 1400", true, func(c *meshnet.Config) { c.MTU = 1400 }},
		{"--network home --hostname web --join-timeout 5s", true, func(c *meshnet.Config) {
			c.Network, c.Hostname, c.JoinTimeout = "home", "web", 5*time.Second
		}},
		{"--cidr 10.9.0.0/16", true, func(c *meshnet.Config) { c.Prefix4 = netip.MustParsePrefix("10.9.0.0/16") }},
		{"--cidr 10.0.0.0/8", true, func(c *meshnet.Config) { c.Prefix4 = netip.MustParsePrefix("10.0.0.0/8") }},
		{"--cidr 10.9.16.0/20", true, func(c *meshnet.Config) { c.Prefix4 = netip.MustParsePrefix("10.9.16.0/20") }},
		{"--forward-inbound=false", false, func(c *meshnet.Config) { c.ForwardInbound = false }},
		{"--bootstrap a:1 --bootstrap [::1]:2,c:3", true, func(c *meshnet.Config) { c.Bootstrap = []string{"a:1", "[::1]:2", "c:3"} }},
		{"--bootstrap-file peers --bootstrap-dns example.org --mdns=false", true, func(c *meshnet.Config) {
			c.BootstrapFile, c.BootstrapDNS, c.MDNS = "peers", "example.org", false
		}},
		{"--dht", true, func(c *meshnet.Config) { c.DHT = true }},
		{"--dht --dht-bootstrap a:1,[::1]:2", true, func(c *meshnet.Config) { c.DHT, c.DHTBootstrap = true, []string{"a:1", "[::1]:2"} }},
		{"--advertise 192.0.2.1:5 --advertise named.example:6", true, func(c *meshnet.Config) {
			c.Advertise = []netip.AddrPort{
				netip.MustParseAddrPort("192.0.2.1:5"), netip.MustParseAddrPort("192.0.2.7:6"),
				netip.MustParseAddrPort("[2001:db8::7]:6"),
			}
		}},
		{"--stun a:1,b:2 --stun [::1]:3478 --portmap=false --metrics :0", true, func(c *meshnet.Config) {
			c.STUN, c.PortMap, c.Metrics = []string{"a:1", "b:2", "[::1]:3478"}, false, ":0"
		}},
		{"--relay-server https://r.example --relay-server https://[::1]:9000#sha256=" + someHash, true, func(c *meshnet.Config) {
			c.RelayServers = []string{"https://r.example", "https://[::1]:9000#sha256=" + someHash}
		}},
		{"--relay", true, func(c *meshnet.Config) { c.Relay = &meshnet.RelayConfig{Addr: ":9000"} }},
		{"--relay --relay-addr :9000 --relay-public r.example:443", true, func(c *meshnet.Config) {
			c.Relay = &meshnet.RelayConfig{Addr: ":9000", AddrFixed: true, Public: "r.example:443"}
		}},
		{"--member-relay off --member-relay-rate 0", true, func(c *meshnet.Config) {
			c.MemberRelay, c.MemberRelayRate = meshnet.MemberRelayOff, -1
		}},
		{"--member-relay on --member-relay-rate 1Gbit", true, func(c *meshnet.Config) {
			c.MemberRelay, c.MemberRelayRate = meshnet.MemberRelayOn, 125_000_000
		}},
		// A proxy that was given is fixed; the other one is a default of userspace mode.
		{"--socks5 127.0.0.1:9", false, func(c *meshnet.Config) { c.SOCKS5, c.ProxyFixed = "127.0.0.1:9", true }},
		{"--socks5 127.0.0.1:9", true, func(c *meshnet.Config) { c.SOCKS5, c.HTTPProxy, c.ProxyFixed = "127.0.0.1:9", "", true }},
		{"--http-proxy :0 --userspace", true, func(c *meshnet.Config) { c.HTTPProxy, c.ProxyFixed, c.TUN = ":0", true, meshnet.TUNOff }},
		{"--http-proxy :0 --tun x", true, func(c *meshnet.Config) {
			c.SOCKS5, c.HTTPProxy, c.ProxyFixed, c.TUN, c.Interface = "", ":0", true, meshnet.TUNRequire, "x"
		}},
		{"--socks5= --http-proxy=", false, func(c *meshnet.Config) { c.SOCKS5, c.HTTPProxy, c.ProxyFixed = "", "", true }},
	} {
		got, err := parse(t, tt.args, tt.root)
		if err != nil {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		want := base
		tt.want(&want)
		for _, l := range []*[]string{&got.Bootstrap, &got.DHTBootstrap, &got.STUN, &got.RelayServers} {
			if len(*l) == 0 {
				*l = nil
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q, root %v:\n got %+v\nwant %+v", tt.args, tt.root, got, want)
		}
	}
	if _, err := parse(t, "--advertise gone.example:6", true); err == nil || errors.As(err, new(*flagError)) {
		t.Errorf("a name that is not found: %v", err)
	}
	for _, addr := range []string{"0.0.0.0:5", "224.0.0.1:5", "255.255.255.255:5", "[::]:5", "[ff02::1]:5"} {
		_, err := parse(t, "--advertise "+addr, true)
		if wrong := new(flagError); !errors.As(err, &wrong) || wrong.flag != "advertise" {
			t.Errorf("--advertise %s: %v", addr, err)
		}
	}
}

// A default proxy address that is taken is none to fail for, even when the other was given.
func TestSettleProxies(t *testing.T) {
	taken, err := net.Listen("tcp", defaultHTTP)
	if err != nil {
		t.Skipf("the default address is taken here: %v", err)
	}
	defer taken.Close()
	socksGiven := func(flag string) bool { return flag == "socks5" }
	c := meshnet.Config{SOCKS5: "127.0.0.1:9", HTTPProxy: defaultHTTP, ProxyFixed: true}
	settleProxies(&c, socksGiven)
	if c.SOCKS5 != "127.0.0.1:9" || c.HTTPProxy != "127.0.0.1:0" {
		t.Errorf("got %s and %s", c.SOCKS5, c.HTTPProxy)
	}
	c = meshnet.Config{HTTPProxy: defaultHTTP, ProxyFixed: true}
	if settleProxies(&c, func(string) bool { return true }); c.HTTPProxy != defaultHTTP {
		t.Error("an address that was given was moved, because it is the default one")
	}
	c = meshnet.Config{HTTPProxy: defaultHTTP}
	if settleProxies(&c, socksGiven); c.HTTPProxy != defaultHTTP {
		t.Error("the node itself moves what is not fixed")
	}
}

func TestToken(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(r.dir, "token")
	if err := os.WriteFile(file, []byte("\n  mesh1file \nrest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(r.dir, "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ join, stdin, want string }{
		{"", "unread", ""},
		{"mesh1literal", "", "mesh1literal"},
		{"@" + file, "", "mesh1file"},
		{"-", "mesh1stdin\n", "mesh1stdin"},
		{"-", "mesh1unended", "mesh1unended"},
	} {
		a := &app{stdin: strings.NewReader(tt.stdin)}
		if got, err := a.token(tt.join); err != nil || got != tt.want {
			t.Errorf("%q: %q, %v", tt.join, got, err)
		}
	}
	for join, code := range map[string]int{"@" + empty: exitFailed, "-": exitFailed, "@/nonexistent": exitFailed} {
		r.want(r.run("up", "--join", join), code)
	}
}
