package main

import (
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
)

// table is what was measured at one MTU. Owned by the run's goroutine.
type table struct {
	MTU      string                          `json:"mtu"` // "1280", or "default": each carrier's own
	Carriers []string                        `json:"carriers"`
	Readings map[string]map[string][]reading `json:"readings"` // by carrier, then metric
	Failures []string                        `json:"failures"` // measurements that gave nothing, and why
	Verdicts []verdict                       `json:"verdicts"`
}

func newTable(mtu string) *table {
	return &table{MTU: mtu, Readings: make(map[string]map[string][]reading)}
}

func (t *table) add(carrier, metric string, r reading) {
	if t.Readings[carrier] == nil {
		t.Readings[carrier] = make(map[string][]reading)
	}
	t.Readings[carrier][metric] = append(t.Readings[carrier][metric], r)
}

func (t *table) readings(carrier, metric string) []reading { return t.Readings[carrier][metric] }

// print writes the table as Markdown: a row a metric, a column a carrier, the median with the spread of the rounds.
func (t *table) print(w io.Writer) {
	title := "Inner MTU " + t.MTU
	if t.MTU == mtuDefault {
		title = "Every carrier's own MTU"
	}
	fmt.Fprintf(w, "\n## %s\n\nMedian (least–most) of the rounds; ! marks figures whose machine was busy with something else in some round.\n\n", title)
	fmt.Fprintf(w, "| | unit | %s |\n|---|---|%s\n", strings.Join(t.Carriers, " | "), strings.Repeat("---:|", len(t.Carriers)))
	for _, m := range metrics() {
		row, measured := make([]string, 0, len(t.Carriers)), false
		for _, c := range t.Carriers {
			s := summarize(t.readings(c, m.Name))
			measured = measured || s.N > 0
			row = append(row, cell(s, m.Digits))
		}
		if measured {
			fmt.Fprintf(w, "| %s | %s | %s |\n", m.Title, m.Unit, strings.Join(row, " | "))
		}
	}
	for _, f := range t.Failures {
		fmt.Fprintf(w, "\nNot measured: %s\n", f)
	}
}

// cell is one summary as text.
func cell(s summary, digits int) string {
	if s.N == 0 {
		return "–"
	}
	text := grouped(s.Median, digits)
	if s.N > 1 {
		text += fmt.Sprintf(" (%s–%s)", grouped(s.Min, digits), grouped(s.Max, digits))
	}
	if s.Noisy > 0 {
		text += " !"
	}
	return text
}

// printBars writes the verdicts.
func printBars(w io.Writer, all []verdict) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### Bars\n\n| what | of | divided by | value | rounds | bar | |\n|---|---|---|---:|---|---:|---|\n")
	for _, v := range all {
		limit, word, against := "≤ "+short(v.AtMost), "missed", v.Against
		if v.AtLeast > 0 {
			limit = "≥ " + short(v.AtLeast)
		}
		if v.OK {
			word = "ok"
		}
		if against == "" {
			m, _ := metricNamed(v.Metric)
			against = "(" + m.Unit + ")"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s–%s | %s | %s |\n",
			v.Name, v.Of, against, short(v.Value), short(v.Spread.Min), short(v.Spread.Max), limit, word)
	}
}

// short is a number with three significant digits, or as many as it has before the point.
func short(f float64) string {
	if f >= 100 || f <= -100 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

// grouped is a number with its thousands apart.
func grouped(f float64, digits int) string {
	text := strconv.FormatFloat(f, 'f', digits, 64)
	whole, rest, found := strings.Cut(text, ".")
	var b strings.Builder
	for i, r := range whole {
		if left := len(whole) - i; i > 0 && left%3 == 0 && whole[i-1] != '-' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	if found {
		b.WriteString("." + rest)
	}
	return b.String()
}

// thisMachine describes the machine. cpuinfo is the text of /proc/cpuinfo.
func thisMachine(kernel, cpuinfo string) machine {
	m := machine{CPUs: runtime.NumCPU(), Kernel: kernel, Go: runtime.Version()}
	for line := range strings.Lines(cpuinfo) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}
