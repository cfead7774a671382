package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
)

// upFlags are the flags of `up`, as they were given.
type upFlags struct {
	join           string
	joinTimeout    time.Duration
	network        string
	cidr           string
	hostname       string
	userspace      bool
	tun            string
	mtu            int
	port           uint16
	advertise      []string
	find           findFlags
	socks5         string
	httpProxy      string
	forwardInbound bool
	paths          pathFlags
	metrics        string
	detach         bool
	readyFD        int
	json           bool
}

const (
	defaultPort  = 41820
	defaultMTU   = 1280
	defaultSOCKS = "127.0.0.1:1080"
	defaultHTTP  = "127.0.0.1:1081"
	noReadyFD    = -1
)

func (a *app) upCommand() *cobra.Command {
	var u upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run this node in the foreground",
		Long: `Runs this node in the foreground. The first time, without --join, it founds a network.
With root it is a network interface; otherwise, or with --userspace, programs reach the network
through local SOCKS5 and HTTP proxies. Ctrl-C or SIGTERM ends it cleanly.

Once it is ready it writes one line to stderr: ready: NAME IPV4 IPV6 (tun INTERFACE) or (userspace).`,
		Example: `  sudo meshnet up --hostname alice --network home
  sudo meshnet up --join @token --detach
  ssh alice meshnet invite | meshnet up --join - --userspace
  sudo meshnet up --join @token --bootstrap bob.example.org:41820
  sudo meshnet up --relay --relay-public relay.example.org:9000
  sudo meshnet up --relay-server https://relay.example.org:9000#sha256=HEX`,
		Args: exactly(0),
	}
	f := cmd.Flags()
	f.StringVar(&u.join, "join", "", "join with a `token`: @FILE, - for stdin, or the token itself, which other users of this machine can then see")
	f.DurationVar(&u.joinTimeout, "join-timeout", 0, "give up when nobody lets us in for so long; 0: never")
	f.StringVar(&u.network, "network", "", "`name` of a network that is founded (default: two random words)")
	f.StringVar(&u.cidr, "cidr", "", "IPv4 `prefix` of a network that is founded, /8 to /20 (default: chosen out of 100.64.0.0/10)")
	f.StringVar(&u.hostname, "hostname", "", "`name` of this node (default: the host's)")
	f.BoolVar(&u.userspace, "userspace", false, "no network interface, even as root")
	f.StringVar(&u.tun, "tun", "", "`name` of the network interface; given and impossible is a failure (default: "+defaultTUN(a.host.os)+")")
	f.IntVar(&u.mtu, "mtu", defaultMTU, "largest packet inside the network, in `bytes`")
	f.Uint16Var(&u.port, "port", defaultPort, "UDP `port`; 0: a free one")
	f.StringSliceVar(&u.advertise, "advertise", nil, "`host:port` where others reach this node; may be repeated")
	u.find.add(f)
	f.StringVar(&u.socks5, "socks5", "", "`address` of the SOCKS5 proxy (default: "+defaultSOCKS+" in userspace mode, else none)")
	f.StringVar(&u.httpProxy, "http-proxy", "", "`address` of the HTTP proxy (default: "+defaultHTTP+" in userspace mode, else none)")
	f.BoolVar(&u.forwardInbound, "forward-inbound", true, "in userspace mode, forward connections from members to 127.0.0.1")
	u.paths.add(f)
	f.StringVar(&u.metrics, "metrics", "", "`address` where Prometheus reads metrics, at /metrics (default: none)")
	f.BoolVar(&u.detach, "detach", false, "return once the node is ready; it goes on in the background")
	f.IntVar(&u.readyFD, "ready-fd", noReadyFD, "write the ready line to this file `descriptor` and close it")
	f.Lookup("ready-fd").DefValue = "0" // so that the help shows no default
	f.BoolVar(&u.json, "json", false, "print events on stdout, one JSON document per line")
	modes := []string{string(meshnet.MemberRelayAuto), string(meshnet.MemberRelayOn), string(meshnet.MemberRelayOff)}
	_ = cmd.RegisterFlagCompletionFunc("member-relay", cobra.FixedCompletions(modes, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = a.does(func(cmd *cobra.Command, _ []string) error { return a.up(cmd, u) })
	return cmd
}

func defaultTUN(goos string) string {
	if goos == "darwin" {
		return "utun"
	}
	return "meshnet0"
}

func (a *app) up(cmd *cobra.Command, u upFlags) error {
	given := func(flag string) bool { return cmd.Flags().Changed(flag) }
	cfg, err := u.config(given, a.host.root, lookUp)
	if err != nil {
		if wrong, ok := err.(*flagError); ok {
			return a.bad(wrong.flag, wrong.err)
		}
		return err
	}
	if cfg.Join, err = a.token(u.join); err != nil {
		return err
	}
	if cfg.Dir, err = a.stateDir(); err != nil {
		return err
	}
	ready, err := openReady(u.readyFD)
	if err != nil {
		return a.bad("ready-fd", err)
	}
	defer ready.close()
	if u.detach {
		return a.detach(cmd, cfg, ready)
	}
	settleProxies(&cfg, given)
	cfg.Logger = a.logger()
	return a.foreground(cfg, ready, u.json)
}
