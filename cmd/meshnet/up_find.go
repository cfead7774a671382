package main

import (
	"errors"

	"github.com/spf13/pflag"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/discovery/lists"
)

// findFlags are the flags of `up` about how members are found, as they were given.
type findFlags struct {
	bootstrap     []string
	bootstrapFile string
	bootstrapDNS  string
	mdns          bool
	dht           bool
	dhtBootstrap  []string
}

func (u *findFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&u.bootstrap, "bootstrap", nil, "`host:port` of a node to try first; may be repeated")
	f.StringVar(&u.bootstrapFile, "bootstrap-file", "", "`file` with one of them a line, read again when it changes")
	f.StringVar(&u.bootstrapDNS, "bootstrap-dns", "", "domain `name` whose SRV and TXT records at _meshnet._udp name more of them")
	f.BoolVar(&u.mdns, "mdns", true, "find members on the same network, and be found there (mDNS)")
	f.BoolVar(&u.dht, "dht", false, "find members, and be found, by the public BitTorrent DHT; its nodes see this one's address, and noise")
	f.StringSliceVar(&u.dhtBootstrap, "dht-bootstrap", nil, "`host:port` of a node of another DHT to begin with, for --dht; may be repeated (default: the public one's)")
}

// check finds values that mean nothing.
func (u *findFlags) check(given func(string) bool) error {
	if given("dht-bootstrap") && !u.dht {
		return &flagError{"dht-bootstrap", errors.New("only together with --dht")}
	}
	if u.bootstrapDNS != "" {
		if _, err := lists.ParseName(u.bootstrapDNS); err != nil {
			return &flagError{"bootstrap-dns", err}
		}
	}
	return checkHostPorts([]hostPorts{{"bootstrap", u.bootstrap, false}, {"dht-bootstrap", u.dhtBootstrap, false}})
}

// config fills in what the flags mean.
func (u *findFlags) config(c *meshnet.Config) {
	c.Bootstrap, c.BootstrapFile, c.BootstrapDNS = u.bootstrap, u.bootstrapFile, u.bootstrapDNS
	c.MDNS, c.DHT, c.DHTBootstrap = u.mdns, u.dht, u.dhtBootstrap
}
