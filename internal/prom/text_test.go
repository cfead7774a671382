package prom

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// everything is a family of each kind that is allowed.
func everything() []Family {
	return []Family{
		{"meshnet_up", "", Gauge, []Sample{Of(1)}},
		{"meshnet_drops_total", "Packets that were thrown away.", Counter, []Sample{
			Of(3, "reason", "full"), Of(0, "reason", "gone"), Of(1<<53, "reason", "slow", "peer", "alice"),
		}},
		{"meshnet_odd", "A \\ and a\nbreak, but \"quotes\" as they are.", Gauge, []Sample{
			Of(-0.5, "text", "a\\b\"c\nd"), Of(math.Inf(1), "text", "é世"), Of(math.Inf(-1), "text", ""), Of(math.NaN(), "text", "bad \xff"),
			Of(1e300, "text", "large"), Of(math.MaxUint64, "text", "count"),
		}},
		{"meshnet_none", "Nothing to tell.", Counter, nil},
		{"ns:rule", "", Counter, []Sample{Of(1)}},
	}
}

func TestGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/everything.txt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Append(nil, everything())
	if err != nil || string(got) != string(want) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
}

// The tool of those who read it has nothing against it.
func TestPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not there")
	}
	text, err := Append(nil, everything()[1:2]) // it wants help texts
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = strings.NewReader(string(text))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAppendRefuses(t *testing.T) {
	one := []Sample{Of(1)}
	for _, tt := range []struct {
		name     string
		families []Family
		want     error
	}{
		{"no name", []Family{{"", "", Counter, one}}, ErrName},
		{"digit first", []Family{{"1a", "", Counter, one}}, ErrName},
		{"dash", []Family{{"a-b", "", Counter, one}}, ErrName},
		{"not ASCII", []Family{{"é", "", Counter, one}}, ErrName},
		{"no type", []Family{{"a", "", "", one}}, ErrType},
		{"histogram", []Family{{"a", "", "histogram", one}}, ErrType},
		{"family twice", []Family{{"a", "", Counter, one}, {"b", "", Counter, one}, {"a", "", Counter, one}}, ErrTwice},
		{"sample twice", []Family{{"a", "", Counter, []Sample{Of(1, "x", "y"), Of(2, "x", "y")}}}, ErrTwice},
		{"bare sample twice", []Family{{"a", "", Counter, []Sample{Of(1), Of(1)}}}, ErrTwice},
		{"label twice", []Family{{"a", "", Counter, []Sample{Of(1, "x", "y", "x", "z")}}}, ErrTwice},
		{"label with a colon", []Family{{"a", "", Counter, []Sample{Of(1, "x:y", "z")}}}, ErrName},
		{"reserved label", []Family{{"a", "", Counter, []Sample{Of(1, "__name__", "z")}}}, ErrName},
		{"empty label", []Family{{"a", "", Counter, []Sample{Of(1, "", "z")}}}, ErrName},
	} {
		if _, err := Append(nil, tt.families); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestOfOdd(t *testing.T) {
	if s := Of(1, "a", "b", "c"); len(s.Labels) != 1 || s.Labels[0] != (Label{"a", "b"}) {
		t.Errorf("got %v", s)
	}
}

// sampleLine is the grammar of a sample with one label.
var sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)\{([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"\} (\S+)$`)

// What is accepted can be read again, whatever the label says.
func FuzzAppend(f *testing.F) {
	f.Add("meshnet_x", "help\n", "reason", "a\\\"\n", 1.5)
	f.Add("a:b", "", "l", "\xff\xfe\x00\r", math.Inf(-1))
	f.Add("", "\\", "__x", "", math.NaN())
	f.Fuzz(func(t *testing.T, name, help, label, value string, v float64) {
		text, err := Append(nil, []Family{{name, help, Gauge, []Sample{Of(v, label, value)}}})
		if err != nil {
			return
		}
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		wantLines := 3
		if help == "" {
			wantLines = 2
		}
		if len(lines) != wantLines {
			t.Fatalf("%d lines in %q, want %d", len(lines), text, wantLines)
		}
		m := sampleLine.FindStringSubmatch(lines[len(lines)-1])
		if m == nil {
			t.Fatalf("not a sample: %q", lines[len(lines)-1])
		}
		read := strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\"`, `"`).Replace(m[3])
		if m[1] != name || m[2] != label || read != strings.ToValidUTF8(value, "\uFFFD") {
			t.Errorf("%q read back as %q %q %q", text, m[1], m[2], read)
		}
		back, err := strconv.ParseFloat(m[4], 64)
		if err != nil || back != v && !(math.IsNaN(back) && math.IsNaN(v)) {
			t.Errorf("%v read back as %v, %v", v, back, err)
		}
	})
}
