package prom

import (
	"maps"
	"slices"
	"strings"
)

// Group makes a family of counters whose names begin alike.
type Group struct {
	Prefix string // of the counters' names; "" fits all
	Name   string // of the family
	Help   string
	Type   Type   // "": Counter
	Label  string // its value is what follows Prefix; "": there is no more than one such counter, named Prefix
}

// Gather makes families of counters: each goes into the first group it fits, and what fits none is left out. Families
// come in the order of their groups, samples in that of their labels.
func Gather(counters map[string]uint64, groups []Group) []Family {
	families := make([]Family, len(groups))
	for i, g := range groups {
		families[i] = Family{Name: g.Name, Help: g.Help, Type: g.Type}
		if g.Type == "" {
			families[i].Type = Counter
		}
	}
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		value := float64(counters[name])
		i := slices.IndexFunc(groups, func(g Group) bool { return g.fits(name) })
		switch {
		case i < 0:
		case groups[i].Label == "":
			families[i].Samples = append(families[i].Samples, Of(value))
		default:
			families[i].Samples = append(families[i].Samples, Of(value, groups[i].Label, name[len(groups[i].Prefix):]))
		}
	}
	return families
}

func (g Group) fits(name string) bool {
	if g.Label == "" {
		return name == g.Prefix
	}
	return strings.HasPrefix(name, g.Prefix)
}

// RelayServer are the groups of a relay server's counters: the same on its own and inside a node.
var RelayServer = []Group{
	{Prefix: "sessions_opened", Name: "meshnet_relay_sessions_opened_total", Help: "Clients that were admitted."},
	{Prefix: "sessions_closed", Name: "meshnet_relay_sessions_closed_total", Help: "Clients that were admitted and are gone."},
	{Prefix: "sessions_live", Name: "meshnet_relay_sessions", Type: Gauge, Help: "Clients that are connected."},
	{Prefix: "forwarded_packets", Name: "meshnet_relay_forwarded_packets_total", Help: "Datagrams passed on."},
	{Prefix: "forwarded_bytes", Name: "meshnet_relay_forwarded_bytes_total", Help: "Bytes of datagrams passed on."},
	{Prefix: "drop_", Name: "meshnet_relay_dropped_packets_total", Label: "reason", Help: "Datagrams thrown away."},
	{Prefix: "refused_", Name: "meshnet_relay_refused_total", Label: "reason", Help: "Clients that were not admitted."},
	{Prefix: "close_", Name: "meshnet_relay_sessions_ended_total", Label: "reason", Help: "Clients that the server hung up on."},
	{Prefix: "", Name: "meshnet_relay_events_total", Label: "event", Help: "What else is worth a number."},
}

// RelayFront are the groups of the counters of what listens before a relay server.
var RelayFront = []Group{
	{Prefix: "waiting", Name: "meshnet_relay_handshakes", Type: Gauge, Help: "Connections that are no clients yet."},
	{Prefix: "stun_answered", Name: "meshnet_relay_stun_answers_total", Help: "STUN requests that were answered."},
	{Prefix: "drop_", Name: "meshnet_relay_turned_away_total", Label: "reason", Help: "Connections and STUN requests that were turned away."},
}
