package main

// outcome is what a worker prints at its end, as JSON. A worker fills in what it knows.
type outcome struct {
	Bytes   int64   `json:"bytes"`    // received within the window
	Packets int64   `json:"packets"`  // received within the window
	Total   int64   `json:"total"`    // packets received from the first to the last
	Sent    int64   `json:"sent"`     // packets, or echoes
	Lost    int64   `json:"lost"`     // echoes
	Seconds float64 `json:"seconds"`  // the window
	Daemons float64 `json:"daemon_s"` // CPU of the daemons within the window
	Machine float64 `json:"machine_s"`
	RTT50   float64 `json:"rtt50_us"`
	RTT99   float64 `json:"rtt99_us"`
}

// tcpFigures are the metrics of a TCP load, by name.
func tcpFigures(test string, o outcome) map[string]float64 {
	gb := float64(o.Bytes) / 1e9
	if gb == 0 || o.Seconds == 0 {
		return map[string]float64{test + "_mbps": 0}
	}
	return map[string]float64{
		test + "_mbps":    gb * 8e3 / o.Seconds,
		test + "_cpu":     o.Daemons / gb,
		test + "_machine": o.Machine / gb,
	}
}

// udpFigures are the metrics of a UDP load at a steady rate and of one that is too much.
func udpFigures(test string, steady, over outcome) map[string]float64 {
	figures := make(map[string]float64)
	if steady.Sent > 0 {
		figures[test+"_lost"] = max(0, 100*float64(steady.Sent-steady.Total)/float64(steady.Sent))
	}
	if over.Packets > 0 && over.Seconds > 0 {
		figures[test+"_pps"] = float64(over.Packets) / over.Seconds
		figures[test+"_cpu"] = over.Daemons * 1e6 / float64(over.Packets)
	}
	return figures
}

// pingFigures are the metrics of echoes on an idle lane and on a loaded one.
func pingFigures(idle, loaded outcome) map[string]float64 {
	return map[string]float64{
		"ping_idle_p50": idle.RTT50, "ping_idle_p99": idle.RTT99, "ping_idle_lost": float64(idle.Lost),
		"ping_load_p50": loaded.RTT50, "ping_load_p99": loaded.RTT99, "ping_load_lost": float64(loaded.Lost),
	}
}

// floodFigures are the metrics of TCP beside a flood at a socket that discards it and beside one at the node, and of a
// flood of each kind at a node with nothing else to do.
func floodFigures(sink, node outcome, alone map[string]outcome) map[string]float64 {
	figures := make(map[string]float64)
	if sink.Bytes > 0 && sink.Seconds > 0 && node.Seconds > 0 {
		figures["flood_sink_mbps"] = float64(sink.Bytes) * 8 / 1e6 / sink.Seconds
		figures["flood_mbps"] = float64(node.Bytes) * 8 / 1e6 / node.Seconds
		figures["flood_kept"] = figures["flood_mbps"] / figures["flood_sink_mbps"]
	}
	for kind, o := range alone {
		if o.Sent > 0 {
			each := o.Daemons * 1e6 / float64(o.Sent)
			figures["flood_cpu_"+kind] = each
			figures["flood_cpu"] = max(figures["flood_cpu"], each)
		}
	}
	return figures
}
