package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// filled is a table with one round of figures.
func filled(figures map[string]map[string]float64) *table {
	t := newTable("1280")
	for carrier, all := range figures {
		t.Carriers = append(t.Carriers, carrier)
		for metric, value := range all {
			t.add(carrier, metric, reading{Round: 1, Value: value})
		}
	}
	return t
}

func TestJudge(t *testing.T) {
	table := filled(map[string]map[string]float64{
		nameMeshnet:   {"tcp1_mbps": 2800, "tcp1_cpu": 4, "udp200_lost": 0, "rss_idle": 25.1},
		nameWireGuard: {"tcp1_mbps": 2000, "tcp1_cpu": 5},
		nameUserspace: {"tcp1_mbps": 700},
		nameRelay:     {"tcp1_mbps": 650, "tcp1_cpu": 9},
	})
	table.add(nameMeshnet, "udp200_lost", reading{Round: 2, Value: 0})
	table.add(nameMeshnet, "udp200_lost", reading{Round: 3, Value: 0.2})
	verdicts := judge(table)
	for _, want := range []struct {
		key   string
		value float64
		ok    bool
	}{
		{"meshnet tcp1_mbps / wireguard-go", 1.4, true},
		{"meshnet tcp1_cpu / wireguard-go", 0.8, false},
		{"meshnet-userspace tcp1_mbps / meshnet", 0.25, true},
		{"meshnet udp200_lost", 0.2, false}, // the worst round counts
		{"meshnet rss_idle", 25.1, false},
		{"meshnet-relay tcp1_mbps / meshnet", 650.0 / 2800, false},
		{"meshnet-relay tcp1_cpu", 9, true},
	} {
		got, found := byKey(verdicts, want.key)
		if !found || got.Value != want.value || got.OK != want.ok {
			t.Errorf("%s: %+v (found %v), want %v, %v", want.key, got, found, want.value, want.ok)
		}
	}
	if len(verdicts) != 7 {
		t.Errorf("%d verdicts, want only what was measured", len(verdicts))
	}
}

// Bars name metrics and carriers that exist, and no two are the same.
func TestBarsNames(t *testing.T) {
	seen := make(map[string]bool)
	names := " " + strings.Join([]string{
		nameVeth, namePlain, nameChacha, nameWireGuard, nameMeshnet, nameUserspace, nameRelay, nameMember,
		nameNebula, nameTinc, "",
	}, " ") + " "
	for _, b := range bars() {
		m, ok := metricNamed(b.Metric)
		if !ok || seen[b.key()] || !strings.Contains(names, " "+b.Of+" ") || !strings.Contains(names, " "+b.Against+" ") {
			t.Errorf("bar %s", b.key())
		}
		if (m.Better == higher) != (b.AtLeast > 0) {
			t.Errorf("bar %s is on the wrong side", b.key())
		}
		seen[b.key()] = true
	}
}

func TestCompare(t *testing.T) {
	figure := func(metric, against string, value, iqr float64) verdict {
		b := bar{Metric: metric, Of: nameMeshnet, Against: against}
		return verdict{bar: b, Key: b.key(), Value: value, Spread: summary{IQR: iqr}}
	}
	for _, tt := range []struct {
		name        string
		before, now verdict
		worse       bool
	}{
		{"the same", figure("tcp1_mbps", "x", 1.5, 0), figure("tcp1_mbps", "x", 1.5, 0), false},
		{"better", figure("tcp1_mbps", "x", 1.5, 0), figure("tcp1_mbps", "x", 3, 0), false},
		{"a little less", figure("tcp1_mbps", "x", 1.5, 0), figure("tcp1_mbps", "x", 1.43, 0), false},
		{"less", figure("tcp1_mbps", "x", 1.5, 0), figure("tcp1_mbps", "x", 1.4, 0), true},
		{"less, but it scatters", figure("tcp1_mbps", "x", 1.5, 0.3), figure("tcp1_mbps", "x", 1.4, 0), false},
		{"dearer", figure("tcp1_cpu", "x", 0.5, 0), figure("tcp1_cpu", "x", 0.6, 0), true},
		{"cheaper", figure("tcp1_cpu", "x", 0.5, 0), figure("tcp1_cpu", "x", 0.3, 0), false},
		{"loss below the floor", figure("udp200_lost", "", 0, 0), figure("udp200_lost", "", 0.05, 0), false},
		{"loss", figure("udp200_lost", "", 0, 0), figure("udp200_lost", "", 0.5, 0), true},
	} {
		all, missing := compare([]verdict{tt.before}, []verdict{tt.now})
		if len(all) != 1 || missing != 0 || all[0].Worse != tt.worse {
			t.Errorf("%s: %+v, missing %d; want worse %v", tt.name, all, missing, tt.worse)
		}
	}
	if all, missing := compare([]verdict{figure("tcp1_mbps", "x", 1, 0)}, nil); len(all) != 0 || missing != 1 {
		t.Errorf("nothing measured: %v, missing %d", all, missing)
	}
}

func TestBaseline(t *testing.T) {
	file := filepath.Join(t.TempDir(), "baseline.json")
	if _, err := readBaseline(file); !errors.Is(err, errNoBaseline) {
		t.Errorf("no file: %v, want %v", err, errNoBaseline)
	}
	measured := filled(map[string]map[string]float64{nameMeshnet: {"tcp1_mbps": 3}, nameWireGuard: {"tcp1_mbps": 2}})
	measured.Verdicts = judge(measured)
	r := &report{Tables: []*table{measured}}
	if err := writeJSON(file, r.baseline()); err != nil {
		t.Fatal(err)
	}
	base, err := readBaseline(file)
	if err != nil {
		t.Fatal(err)
	}
	all, missing := compare(base.Verdicts, r.tableFor(base.MTU).Verdicts)
	var out strings.Builder
	if !printComparison(&out, base, all, missing) || !strings.Contains(out.String(), "| meshnet tcp1_mbps / wireguard-go | 1.5 | 1.5 |") {
		t.Errorf("compared with itself:\n%s", out.String())
	}
	all[0].Worse = true
	if printComparison(&out, base, all, missing) || printComparison(&out, base, nil, 1) {
		t.Error("a worse run, or one that measured nothing, passes")
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readBaseline(file); err == nil {
		t.Error("an empty baseline was taken")
	}
}
