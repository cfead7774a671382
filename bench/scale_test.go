package main

import (
	"strings"
	"testing"
)

func TestPassFigures(t *testing.T) {
	figures := make(map[string]float64)
	passFigures(passOutcome{Pass: passSpread, Members: 10, Shaken: 10, Echoed: 9, Seconds: 2, Daemons: 0.5, Shake50: 1, Shake99: 3}, figures)
	passFigures(passOutcome{Pass: passBurst, Members: 10, Shaken: 10, Echoed: 10, Seconds: 0.5, Daemons: 0.002}, figures)
	for name, want := range map[string]float64{
		"scale_failed": 1, "scale_spread_cpu": 250, "scale_shake_p50": 1, "scale_shake_p99": 3,
		"scale_burst_rate": 20, "scale_burst_cpu": 200,
	} {
		if figures[name] != want {
			t.Errorf("%s is %v, want %v", name, figures[name], want)
		}
	}
	for name := range figures {
		if _, ok := metricNamed(name); !ok {
			t.Errorf("%s is no metric", name)
		}
	}
	none := make(map[string]float64)
	passFigures(passOutcome{Pass: passBurst, Members: 10}, none)
	if none["scale_failed"] != 10 || len(none) != 1 {
		t.Errorf("a pass in which nobody was answered: %v", none)
	}
}

// The bars are about the sizes they name.
func TestScaleReport(t *testing.T) {
	full := fullScale()
	r := &scaleReport{Members: full.members, Active: full.active, Figures: map[string]float64{
		"scale_rss_active": 120.5, "scale_failed": 0, "scale_burst_rate": 4321,
	}}
	r.judge()
	if len(r.Verdicts) != 2 || r.Verdicts[0].OK || !r.Verdicts[1].OK {
		t.Errorf("verdicts %+v", r.Verdicts)
	}
	var b strings.Builder
	r.print(&b)
	for _, want := range []string{"10 000 members known, 1 000 of them active", "| Handshakes as fast as it goes | handshakes/s | 4 321 |", "| missed |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	small := &scaleReport{Members: 100, Active: 10, Figures: r.Figures}
	if small.judge(); len(small.Verdicts) > 0 {
		t.Errorf("a small network is held to %+v", small.Verdicts)
	}
}
