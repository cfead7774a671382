package prom

import (
	"strings"
	"testing"
)

func TestGather(t *testing.T) {
	groups := []Group{
		{Prefix: "live", Name: "live", Type: Gauge},
		{Prefix: "drop_", Name: "drops_total", Label: "reason", Help: "Lost."},
		{Prefix: "none_", Name: "none_total", Label: "x"},
	}
	got, err := Append(nil, Gather(map[string]uint64{"drop_full": 3, "drop_all": 1 << 40, "live": 2, "lively": 9, "other": 7}, groups))
	const want = `# TYPE live gauge
live 2
# HELP drops_total Lost.
# TYPE drops_total counter
drops_total{reason="all"} 1099511627776
drops_total{reason="full"} 3
`
	if err != nil || string(got) != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
}

// Every counter of a relay server comes out, under a name that says what it counts.
func TestRelayServer(t *testing.T) {
	counters := map[string]uint64{
		"sessions_opened": 1, "sessions_closed": 2, "sessions_live": 3, "forwarded_packets": 4, "forwarded_bytes": 5,
		"drop_queue_full": 6, "refused_pass": 7, "close_idle": 8, "rate_limited": 9,
	}
	got, err := Append(nil, Gather(counters, RelayServer))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"meshnet_relay_sessions_opened_total 1\n", "meshnet_relay_sessions_closed_total 2\n", "# TYPE meshnet_relay_sessions gauge\nmeshnet_relay_sessions 3\n",
		"meshnet_relay_forwarded_packets_total 4\n", "meshnet_relay_forwarded_bytes_total 5\n",
		`meshnet_relay_dropped_packets_total{reason="queue_full"} 6` + "\n", `meshnet_relay_refused_total{reason="pass"} 7` + "\n",
		`meshnet_relay_sessions_ended_total{reason="idle"} 8` + "\n", `meshnet_relay_events_total{event="rate_limited"} 9` + "\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
