package main

// better says which way a metric improves.
type better int

const (
	higher better = iota
	lower
)

// metric is one figure of a carrier: one reading a round, or one a run.
type metric struct {
	Name   string
	Test   string // the test that gives it, as in -only
	Title  string
	Unit   string
	Digits int // after the point
	Better better
	Floor  float64 // differences below it mean nothing, in its unit
}

// tests are what -only chooses from, in the order in which they run.
func tests() []string {
	return []string{"memory", "tcp1", "tcp4", "tcp16", "tcp1r", "udp200", "udp1200", "ping", "flood"}
}

// metrics are all figures, in the order of the tables.
func metrics() []metric {
	var all []metric
	for _, t := range []struct{ test, what string }{
		{"tcp1", "TCP, 1 stream"},
		{"tcp4", "TCP, 4 streams"},
		{"tcp16", "TCP, 16 streams"},
		{"tcp1r", "TCP, 1 stream back"},
	} {
		all = append(all,
			metric{Name: t.test + "_mbps", Test: t.test, Title: t.what, Unit: "Mbit/s"},
			metric{
				Name: t.test + "_cpu", Test: t.test, Title: t.what + ": daemons' CPU", Unit: "s/GB",
				Digits: 2, Better: lower,
			},
			metric{
				Name: t.test + "_machine", Test: t.test, Title: t.what + ": machine's CPU", Unit: "s/GB",
				Digits: 2, Better: lower,
			})
	}
	for _, t := range []struct{ test, what string }{
		{"udp200", "UDP, 200 B"}, {"udp1200", "UDP, 1200 B"},
	} {
		all = append(all,
			metric{
				Name: t.test + "_lost", Test: t.test, Title: t.what + " at 20 000/s: lost", Unit: "%",
				Digits: 3, Better: lower, Floor: 0.1,
			},
			metric{Name: t.test + "_pps", Test: t.test, Title: t.what + ", overload: received", Unit: "packets/s"},
			metric{
				Name: t.test + "_cpu", Test: t.test, Title: t.what + ", overload: daemons' CPU", Unit: "µs/packet",
				Digits: 2, Better: lower,
			})
	}
	for _, t := range []struct{ name, what string }{
		{"idle", "Ping, idle"}, {"load", "Ping under a TCP stream"},
	} {
		all = append(all,
			metric{Name: "ping_" + t.name + "_p50", Test: "ping", Title: t.what + ": median", Unit: "µs", Better: lower},
			metric{Name: "ping_" + t.name + "_p99", Test: "ping", Title: t.what + ": 99th percentile", Unit: "µs", Better: lower},
			metric{
				Name: "ping_" + t.name + "_lost", Test: "ping", Title: t.what + ": lost", Unit: "echoes",
				Better: lower, Floor: 1,
			})
	}
	all = append(all, floodMetrics()...)
	for _, t := range []struct{ name, what string }{
		{"idle", "idle"}, {"load", "most under load"}, {"after", "right after load"}, {"rest", "idle again"},
	} {
		all = append(all, metric{
			Name: "rss_" + t.name, Test: "memory", Title: "Memory of a daemon, " + t.what, Unit: "MB",
			Digits: 1, Better: lower, Floor: 2,
		})
	}
	return append(all, scaleMetrics()...)
}

// The kinds of foreign packets that a flood is made of.
const (
	floodRandom = "random" // bytes
	floodSTUN   = "stun"   // an answer to a request that nobody sent
	floodDisco  = "disco"  // a ping of nobody
	floodFrames = "frames" // of sessions that nobody relays
)

func floodKinds() []string { return []string{floodRandom, floodSTUN, floodDisco, floodFrames} }

// floodMetrics are those of the flood test. What is kept is a ratio of its own, since both its parts are of one carrier.
func floodMetrics() []metric {
	all := []metric{
		{Name: "flood_sink_mbps", Title: "TCP beside a flood that a socket discards", Unit: "Mbit/s"},
		{Name: "flood_mbps", Title: "TCP beside a flood at the node", Unit: "Mbit/s"},
		{Name: "flood_kept", Title: "TCP beside a flood: kept", Unit: "of 1", Digits: 3},
	}
	for _, t := range []struct{ kind, what string }{
		{"_" + floodRandom, "random bytes"},
		{"_" + floodSTUN, "like STUN"},
		{"_" + floodDisco, "like pings"},
		{"_" + floodFrames, "like relayed frames"},
		{"", "the dearest kind"},
	} {
		all = append(all, metric{
			Name: "flood_cpu" + t.kind, Title: "Flood alone, " + t.what + ": daemon's CPU", Unit: "µs/packet",
			Digits: 2, Better: lower, Floor: 0.1,
		})
	}
	for i := range all {
		all[i].Test = "flood"
	}
	return all
}

// metricNamed finds a metric.
func metricNamed(name string) (metric, bool) {
	for _, m := range metrics() {
		if m.Name == name {
			return m, true
		}
	}
	return metric{}, false
}
