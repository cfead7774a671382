package main

import "slices"

// The carriers that bars name.
const (
	nameVeth      = "veth"
	namePlain     = "plain"
	nameChacha    = "plain-chacha"
	nameWireGuard = "wireguard-go"
	nameMeshnet   = "meshnet"
	nameUserspace = "meshnet-userspace"
	nameRelay     = "meshnet-relay"
	nameMember    = "meshnet-member"
	nameNebula    = "nebula"
	nameTinc      = "tinc"
)

// bar is what meshnet is held to: a metric, divided by another carrier's unless Against is empty.
type bar struct {
	Name    string  `json:"name"`
	Metric  string  `json:"metric"`
	Of      string  `json:"of"`
	Against string  `json:"against,omitempty"`
	AtLeast float64 `json:"at_least,omitempty"` // one of the two; AtMost counts where AtLeast is 0
	AtMost  float64 `json:"at_most"`
	Worst   bool    `json:"worst,omitempty"` // judged by the worst round, not by the median
}

func bars() []bar {
	return []bar{
		{Name: "TCP, 1 stream", Metric: "tcp1_mbps", Of: nameMeshnet, Against: nameWireGuard, AtLeast: 1.35},
		{Name: "TCP, 4 streams", Metric: "tcp4_mbps", Of: nameMeshnet, Against: nameWireGuard, AtLeast: 1.15},
		{Name: "TCP, 1 stream", Metric: "tcp1_mbps", Of: nameMeshnet, Against: nameChacha, AtLeast: 0.9},
		{Name: "TCP, 1 stream: CPU a GB", Metric: "tcp1_cpu", Of: nameMeshnet, Against: nameWireGuard, AtMost: 0.68},
		{Name: "TCP, 1 stream, userspace", Metric: "tcp1_mbps", Of: nameUserspace, Against: nameMeshnet, AtLeast: 0.25},
		{Name: "TCP, 1 stream, by relay server", Metric: "tcp1_mbps", Of: nameRelay, Against: nameMeshnet, AtLeast: 0.25},
		{Name: "TCP, 1 stream, by relay server: CPU a GB", Metric: "tcp1_cpu", Of: nameRelay, AtMost: 10},
		{Name: "TCP, 1 stream, by a member", Metric: "tcp1_mbps", Of: nameMember, Against: nameMeshnet, AtLeast: 0.4},
		{Name: "UDP, 200 B, overload", Metric: "udp200_pps", Of: nameMeshnet, Against: nameWireGuard, AtLeast: 2.8},
		{Name: "UDP, 200 B, overload", Metric: "udp200_pps", Of: nameMeshnet, Against: nameChacha, AtLeast: 0.9},
		{Name: "UDP, 1200 B, overload", Metric: "udp1200_pps", Of: nameMeshnet, Against: nameChacha, AtLeast: 0.9},
		{Name: "UDP, 200 B: CPU a packet", Metric: "udp200_cpu", Of: nameMeshnet, Against: nameWireGuard, AtMost: 0.28},
		{Name: "UDP, 200 B at 20 000/s: lost", Metric: "udp200_lost", Of: nameMeshnet, Worst: true},
		{Name: "UDP, 1200 B at 20 000/s: lost", Metric: "udp1200_lost", Of: nameMeshnet, Worst: true},
		{Name: "ping under TCP, median", Metric: "ping_load_p50", Of: nameMeshnet, Against: nameWireGuard, AtMost: 0.25},
		{Name: "ping under TCP, 99th percentile", Metric: "ping_load_p99", Of: nameMeshnet, Against: nameWireGuard, AtMost: 0.3},
		{Name: "ping under TCP: lost", Metric: "ping_load_lost", Of: nameMeshnet, Worst: true},
		{Name: "ping idle, median", Metric: "ping_idle_p50", Of: nameMeshnet, Against: nameWireGuard, AtMost: 0.9},
		{Name: "flood of foreign packets: TCP kept", Metric: "flood_kept", Of: nameMeshnet, AtLeast: 0.9},
		{Name: "flood of foreign packets: CPU a packet", Metric: "flood_cpu", Of: nameMeshnet, AtMost: 1.5},
		{Name: "memory idle", Metric: "rss_idle", Of: nameMeshnet, AtMost: 25},
		{Name: "memory right after load", Metric: "rss_after", Of: nameMeshnet, AtMost: 40},
		{Name: "memory idle again", Metric: "rss_rest", Of: nameMeshnet, AtMost: 25},
		{Name: "10 000 known, 1 000 recently active: memory", Metric: "scale_rss_active", Of: nameMeshnet, AtMost: 120},
		{Name: "10 000 known, 1 000 recently active: failed", Metric: "scale_failed", Of: nameMeshnet},
	}
}

// key tells a bar from all others, also between two runs.
func (b bar) key() string {
	if b.Against == "" {
		return b.Of + " " + b.Metric
	}
	return b.Of + " " + b.Metric + " / " + b.Against
}

// verdict is a bar with what was measured.
type verdict struct {
	bar
	Key    string  `json:"key"`
	Value  float64 `json:"value"`
	Spread summary `json:"spread"`
	OK     bool    `json:"ok"`
}

// judge holds a table against the bars. A bar whose figures the table lacks is left out.
func judge(t *table) []verdict {
	var all []verdict
	for _, b := range bars() {
		readings := t.readings(b.Of, b.Metric)
		if b.Against != "" {
			readings = quotients(readings, t.readings(b.Against, b.Metric))
		}
		s := summarize(readings)
		if s.N == 0 {
			continue
		}
		v := verdict{bar: b, Key: b.key(), Value: s.Median, Spread: s}
		if b.Worst {
			v.Value = s.Max
		}
		if b.AtLeast > 0 {
			v.OK = v.Value >= b.AtLeast
		} else {
			v.OK = v.Value <= b.AtMost
		}
		all = append(all, v)
	}
	return all
}

// byKey finds a verdict.
func byKey(all []verdict, key string) (verdict, bool) {
	i := slices.IndexFunc(all, func(v verdict) bool { return v.Key == key })
	if i < 0 {
		return verdict{}, false
	}
	return all[i], true
}
