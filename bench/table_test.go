package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		value  float64
		digits int
		want   string
	}{
		{0, 0, "0"}, {999, 0, "999"}, {1000, 0, "1 000"}, {1234567.891, 2, "1 234 567.89"}, {-12345, 0, "-12 345"}, {0.5, 1, "0.5"},
	} {
		if got := grouped(tt.value, tt.digits); got != tt.want {
			t.Errorf("grouped %v: %q, want %q", tt.value, got, tt.want)
		}
	}
	for value, want := range map[float64]string{0.12345: "0.123", 1.5: "1.5", 28.04: "28", 123456: "123456"} {
		if got := short(value); got != want {
			t.Errorf("short %v: %q, want %q", value, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	table := newTable(mtuDefault)
	table.Carriers = []string{nameVeth, nameMeshnet}
	table.add(nameVeth, "tcp1_mbps", reading{Round: 1, Value: 20000})
	table.add(nameVeth, "tcp1_mbps", reading{Round: 2, Value: 21000, Noisy: true})
	table.add(nameMeshnet, "tcp1_cpu", reading{Round: 1, Value: 2.5})
	table.Failures = []string{"round 1/2 tcp1 meshnet: it broke"}
	var out strings.Builder
	table.print(&out)
	for _, want := range []string{
		"## Every carrier's own MTU",
		"| | unit | veth | meshnet |\n|---|---|---:|---:|\n",
		"| TCP, 1 stream | Mbit/s | 20 500 (20 000–21 000) ! | – |\n",
		"| TCP, 1 stream: daemons' CPU | s/GB | – | 2.50 |\n",
		"Not measured: round 1/2 tcp1 meshnet: it broke",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "Ping") {
		t.Error("a row of what was not measured")
	}
}

func TestFloodFigures(t *testing.T) {
	got := floodFigures(outcome{Bytes: 1e9, Seconds: 4}, outcome{Bytes: 9e8, Seconds: 4}, map[string]outcome{
		floodRandom: {Sent: 40_000, Daemons: 0.02}, floodSTUN: {Sent: 40_000, Daemons: 0.06}, floodDisco: {},
	})
	want := map[string]float64{
		"flood_sink_mbps": 2000, "flood_mbps": 1800, "flood_kept": 0.9,
		"flood_cpu_random": 0.5, "flood_cpu_stun": 1.5, "flood_cpu": 1.5,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for name := range got {
		if _, ok := metricNamed(name); !ok {
			t.Errorf("%s is no metric", name)
		}
	}
}

func TestFigures(t *testing.T) {
	tcp := tcpFigures("tcp1", outcome{Bytes: 2e9, Seconds: 4, Daemons: 6, Machine: 8})
	if tcp["tcp1_mbps"] != 4000 || tcp["tcp1_cpu"] != 3 || tcp["tcp1_machine"] != 4 {
		t.Errorf("TCP: %v", tcp)
	}
	udp := udpFigures("udp200", outcome{Sent: 1000, Total: 990}, outcome{Packets: 100_000, Seconds: 2, Daemons: 0.5})
	if udp["udp200_lost"] != 1 || udp["udp200_pps"] != 50_000 || udp["udp200_cpu"] != 5 {
		t.Errorf("UDP: %v", udp)
	}
	if got := tcpFigures("tcp1", outcome{}); got["tcp1_mbps"] != 0 || len(got) != 1 {
		t.Errorf("nothing received: %v", got)
	}
	for name := range pingFigures(outcome{}, outcome{}) {
		if _, ok := metricNamed(name); !ok {
			t.Errorf("%s is no metric", name)
		}
	}
}

func TestPlan(t *testing.T) {
	all := []string{"a", "b", "c"}
	if got, err := choose("c, a", all); err != nil || strings.Join(got, "") != "ac" {
		t.Errorf("chosen %v, %v; want the order of all", got, err)
	}
	if _, err := choose("a,d", all); err == nil {
		t.Error("an unknown name was taken")
	}
	for text, want := range map[string]int{"default": 0, "1280": 1280, "1400": 1400, "100": -1, "9000": -1, "x": -1} {
		if got, err := parseMTU(text); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("MTU %s: %d, %v", text, got, err)
		}
	}
	if got := fullPlan().estimate(6, 1, 1); got < 10*time.Minute || got > 30*time.Minute {
		t.Errorf("a full run takes %v", got)
	}
	if got := quickPlan().estimate(3, 0, 0); got > 3*time.Minute {
		t.Errorf("a quick run takes %v", got)
	}
}

func TestCharts(t *testing.T) {
	measured := filled(map[string]map[string]float64{nameMeshnet: {"tcp1_mbps": 3, "udp200_lost": 0}, nameWireGuard: {"tcp1_mbps": 2}})
	measured.add(nameMeshnet, "tcp1_mbps", reading{Round: 2, Value: 5})
	dir := filepath.Join(t.TempDir(), "charts")
	if err := writeCharts(dir, &report{Tables: []*table{measured}}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v; want one chart, none of what is 0", files, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "tcp1_mbps.svg"))
	if err != nil {
		t.Fatal(err)
	}
	decoder, bars := xml.NewDecoder(strings.NewReader(string(data))), 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			bars++
		}
	}
	text := string(data)
	if bars != 2 || strings.Contains(text, "%!") || !strings.Contains(text, "prefers-color-scheme:dark") {
		t.Errorf("%d bars in\n%s", bars, text)
	}
}

func TestReport(t *testing.T) {
	m := thisMachine("6.1", "processor : 0\nmodel name\t: Fast One\nmodel name\t: Other\n")
	if m.CPU != "Fast One" || m.Kernel != "6.1" || m.CPUs < 1 {
		t.Errorf("%+v", m)
	}
	r := &report{Machine: m, Absent: []string{"tinc: no tincd in PATH"}, Tables: []*table{filled(nil)}}
	var out strings.Builder
	r.print(&out)
	if !r.complete() || !strings.Contains(out.String(), "Fast One") || !strings.Contains(out.String(), "Not here: tinc") {
		t.Errorf("report:\n%s", out.String())
	}
	r.Tables[0].Failures = []string{"x"}
	if r.complete() {
		t.Error("a run with failures is complete")
	}
	file := filepath.Join(t.TempDir(), "r.json")
	if err := writeJSON(file, r); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	back := new(report)
	if err := json.Unmarshal(data, back); err != nil || back.Tables[0].MTU != "1280" || back.Machine != m {
		t.Errorf("read back %+v, %v", back, err)
	}
}
