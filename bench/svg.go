package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Measures of a chart, in pixels.
const (
	chartWidth = 720
	chartLeft  = 150 // of the bars: names stand there
	chartRight = 150 // for the figures behind the bars
	chartTop   = 48
	chartRow   = 30
	chartBar   = 18
)

// chartStyle follows the reader's choice of light or dark.
const chartStyle = `<style>
text{font:13px sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.small{font-size:11px;fill:#59636e}
.bar{fill:#9aa7b4}.ours{fill:#2f7d5b}.spread{stroke:#1f2328;stroke-width:1.5;fill:none}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.bar{fill:#5b6875}.ours{fill:#4cae82}.spread{stroke:#e6edf3}}
</style>`

// chartRowData is one bar.
type chartRowData struct {
	name string
	summary
}

// writeCharts writes one chart a metric into a folder, which it makes: METRIC.svg for the first table,
// METRIC-MTU.svg for others. A metric that is 0 everywhere has none.
func writeCharts(dir string, r *report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i, t := range r.Tables {
		for _, m := range metrics() {
			rows := t.rows(m.Name)
			if len(rows) == 0 {
				continue
			}
			name := m.Name
			if i > 0 {
				name += "-" + t.MTU
			}
			var b strings.Builder
			drawChart(&b, m, t.MTU, rows)
			if err := os.WriteFile(filepath.Join(dir, name+".svg"), []byte(b.String()), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// rows are a metric's summaries in the order of the carriers; none when there is nothing to see.
func (t *table) rows(metric string) (rows []chartRowData) {
	most := 0.0
	for _, c := range t.Carriers {
		if s := summarize(t.readings(c, metric)); s.N > 0 {
			rows = append(rows, chartRowData{c, s})
			most = max(most, s.Max)
		}
	}
	if most <= 0 {
		return nil
	}
	return rows
}

// drawChart writes a chart of horizontal bars: the median, and a whisker from the least to the most of the rounds.
func drawChart(w io.Writer, m metric, mtu string, rows []chartRowData) {
	most := 0.0
	for _, r := range rows {
		most = max(most, r.Max)
	}
	scale := float64(chartWidth-chartLeft-chartRight) / most
	height := chartTop + len(rows)*chartRow + 12
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n%[3]s\n",
		chartWidth, height, chartStyle)
	fmt.Fprintf(w, `<text class="title" x="12" y="20">%s, %s</text>`+"\n", escaped(m.Title), escaped(m.Unit))
	hint := "more is better"
	if m.Better == lower {
		hint = "less is better"
	}
	fmt.Fprintf(w, `<text class="small" x="12" y="37">%s · inner MTU %s · median, least to most of the rounds</text>`+"\n", hint, escaped(mtu))
	for i, r := range rows {
		y := chartTop + i*chartRow
		middle := y + chartBar/2
		class := "bar"
		if strings.HasPrefix(r.name, nameMeshnet) {
			class = "ours"
		}
		low, high := chartLeft+r.Min*scale, chartLeft+r.Max*scale
		fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", chartLeft-8, middle+5, escaped(r.name))
		fmt.Fprintf(w, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", class, chartLeft, y, r.Median*scale, chartBar)
		fmt.Fprintf(w, `<path class="spread" d="M%.1[1]f %[2]d H%.1[3]f M%.1[1]f %[4]d v8 M%.1[3]f %[4]d v8"/>`+"\n", low, middle, high, middle-4)
		fmt.Fprintf(w, `<text x="%.1f" y="%d">%s</text>`+"\n", high+8, middle+5, escaped(grouped(r.Median, m.Digits)))
	}
	fmt.Fprintln(w, `</svg>`)
}

func escaped(text string) string {
	var b strings.Builder
	// A strings.Builder takes everything.
	_ = xml.EscapeText(&b, []byte(text))
	return b.String()
}
