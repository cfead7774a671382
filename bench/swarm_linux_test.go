package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/netlab"
)

func TestRoster(t *testing.T) {
	c, err := newCrowd(4, 2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := c.roster(netip.MustParseAddrPort("192.0.2.1:7"), 2).write(dir); err != nil {
		t.Fatal(err)
	}
	r, err := readRoster(dir)
	if err != nil || r.Node != c.founder.WG() || r.Outer != "192.0.2.1:7" || len(r.Members) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, m := range r.Members {
		o := c.others[i]
		if m.Private != o.id.WGPrivate() || m.PSK != c.psk(o.id) || m.Inner != o.inner.String() || m.Outer != o.outer.String() {
			t.Errorf("member %d is %+v", i, m)
		}
	}
	if _, err := readRoster(t.TempDir()); err == nil {
		t.Error("no roster, and no error")
	}
}

func TestArrivedAt(t *testing.T) {
	oob := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 3, Spec_dst: [4]byte{10, 9, 9, 9}, Addr: [4]byte{10, 0, 1, 1}})
	if got := arrivedAt(oob); got != netip.MustParseAddr("10.0.1.1") {
		t.Errorf("got %s", got)
	}
	for _, bad := range [][]byte{nil, oob[:7], make([]byte, 40)} {
		if got := arrivedAt(bad); got.IsValid() {
			t.Errorf("% x is %s", bad, got)
		}
	}
}

// A pass that is spread goes by the clock, a burst by who is busy.
func TestPassTurn(t *testing.T) {
	now := time.Now()
	spread := pass{within: 10 * time.Second, began: now, next: 2}
	for after, want := range map[time.Duration]bool{0: false, 1999 * time.Millisecond: false, 2 * time.Second: true, time.Minute: true} {
		if got := spread.turn(now.Add(after), 10); got != want {
			t.Errorf("after %v: turn %v", after, got)
		}
	}
	if got := spread.pause(now.Add(time.Second), 10); got != time.Second {
		t.Errorf("pause %v, want 1s", got)
	}
	if got := spread.pause(now.Add(time.Minute), 10); got != time.Millisecond {
		t.Errorf("pause of one that is late %v", got)
	}
	burst := pass{flying: 2, busy: 1}
	if !burst.turn(now, 10) || burst.pause(now, 10) != swarmTick {
		t.Error("a burst waits though there is room")
	}
	burst.busy = 2
	if burst.turn(now, 10) {
		t.Error("a burst goes beyond its width")
	}
}

func TestPassOutcome(t *testing.T) {
	now := time.Now()
	p := pass{name: passBurst, began: now, last: now.Add(2 * time.Second), shakes: []float64{3, 1, 2}, echoes: []float64{5}}
	want := passOutcome{Pass: passBurst, Shaken: 3, Echoed: 1, Seconds: 2, Shake50: 2, Shake99: 2.98, Echo50: 5, Echo99: 5}
	if got := p.outcome(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := (&pass{name: passBurst}).outcome(); got != (passOutcome{Pass: passBurst}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestScaleUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-members", "1"},
		{"-members", "100000"},
		{"-active", "0"},
		{"-members", "50", "-active", "50"},
		{"extra"},
		{"-unknown"},
		{"-meshnet", "/nowhere"},
	} {
		var out, errs bytes.Buffer
		if code := command(t.Context(), append([]string{scaleName}, args...), &out, &errs); code != exitUsage || errs.Len() == 0 {
			t.Errorf("%v: exit %d, %q", args, code, errs.String())
		}
	}
}

// TestScaleQuick measures a small network for a moment: all handshakes and echoes succeed, and nothing stays behind.
func TestScaleQuick(t *testing.T) {
	netlab.Need(t, os.Geteuid() == 0, "network namespaces need root")
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	o, err := parseScale([]string{"-members", "60", "-active", "12", "-json", filepath.Join(t.ArtifactDir(), "scale.json")}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	const moment = 200 * time.Millisecond
	o.plan.settle, o.plan.idle, o.plan.within, o.plan.later, o.plan.lookup = moment, moment, moment, moment, time.Millisecond
	r, err := o.measure(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range scaleMetrics() {
		if value, ok := r.Figures[m.Name]; !ok || value < 0 || value == 0 && m.Name != "scale_failed" && m.Name != "scale_cpu_idle" {
			t.Errorf("%s: %v, measured %v", m.Name, value, ok)
		}
	}
	if r.Figures["scale_failed"] != 0 || len(r.Passes) != 2 {
		t.Errorf("%v failed; passes %+v", r.Figures["scale_failed"], r.Passes)
	}
	if err := writeJSON(o.json, r); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(o.json)
	if err != nil || !json.Valid(data) || !strings.Contains(string(data), `"scale_rss_active"`) {
		t.Errorf("%v, %s", err, data)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if names := children(t); len(names) > 0 {
		t.Errorf("left running: %v", names)
	}
}
