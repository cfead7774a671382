package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

// TestMain lets the test's binary be the workers, as the program's own is.
func TestMain(m *testing.M) {
	if code, ok := runWorker(os.Args[1:]); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-only", "tcp7"},
		{"-carriers", "pigeon"},
		{"-mtu", "9000"},
		{"-rounds", "-1"},
		{"extra"},
		{"-unknown"},
		{"-meshnet", "/nowhere"},
		{"-flame", "f.svg", "-carriers", "veth"},
	} {
		var out, errs bytes.Buffer
		if code := command(t.Context(), args, &out, &errs); code != exitUsage || errs.Len() == 0 {
			t.Errorf("%v: exit %d, %q", args, code, errs.String())
		}
	}
	var out, errs bytes.Buffer
	missing := filepath.Join(t.TempDir(), "baseline.json")
	if code := command(t.Context(), []string{"-compare", missing}, &out, &errs); code != exitFailed ||
		!strings.Contains(errs.String(), "-save") {
		t.Errorf("no baseline: exit %d, %q", code, errs.String())
	}
}

// children are the processes that this one started and that are there, by name.
func children(t *testing.T) (names []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	own := strconv.Itoa(os.Getpid())
	for _, file := range all {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		end := bytes.LastIndexByte(text, ')')
		if fields := strings.Fields(string(text[end+1:])); len(fields) > 1 && fields[1] == own {
			names = append(names, string(text[:end+1]))
		}
	}
	return names
}

// TestBenchQuick measures some carriers for a moment, and nothing stays behind.
func TestBenchQuick(t *testing.T) {
	netlab.Need(t, os.Geteuid() == 0, "network namespaces need root")
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	o, err := parseOptions([]string{"-carriers", "veth,plain-chacha,meshnet,meshnet-relay,meshnet-member", "-quick", "-rounds", "1"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	o.plan.warm, o.plan.tcp, o.plan.udp, o.plan.pings = 100*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond, 10
	o.plan.patience = 0
	o.json = filepath.Join(t.ArtifactDir(), "bench.json")
	var out bytes.Buffer
	if ok, err := o.execute(t.Context(), &out, t.Output()); err != nil || !ok {
		t.Fatalf("complete %v, %v", ok, err)
	}
	data, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	r := new(report)
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	for _, carrier := range o.plan.carriers {
		for _, m := range metrics() {
			if !o.plan.has(m.Test) || strings.HasSuffix(m.Name, "_lost") || carrier == nameVeth && strings.HasSuffix(m.Name, "_cpu") ||
				m.Test == "flood" && carrier != nameMeshnet {
				continue
			}
			if s := summarize(r.Tables[0].readings(carrier, m.Name)); s.N != 1 || s.Median <= 0 {
				t.Errorf("%s %s: %+v", carrier, m.Name, s)
			}
		}
	}
	if !strings.Contains(out.String(), "### Bars") {
		t.Errorf("no bars in\n%s", out.String())
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if names := children(t); len(names) > 0 {
		t.Errorf("left running: %v", names)
	}
}
