package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// leastMargin is the share by which two runs of the same program differ on a quiet machine.
const leastMargin = 0.05

// baseline is the part of a run that later runs are compared with: what meshnet was in proportion to the others, since
// absolute speed depends on the machine and the hour.
type baseline struct {
	Recorded time.Time `json:"recorded"`
	Machine  machine   `json:"machine"`
	MTU      string    `json:"mtu"`
	Verdicts []verdict `json:"verdicts"`
}

// errNoBaseline is returned when the file to compare with is not there.
var errNoBaseline = errors.New("there is no baseline: record one with -save FILE")

func readBaseline(file string) (*baseline, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", file, errNoBaseline)
	}
	if err != nil {
		return nil, err
	}
	b := new(baseline)
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(b.Verdicts) == 0 {
		return nil, fmt.Errorf("%s holds no figures", file)
	}
	return b, nil
}

// difference is one figure in the baseline and now.
type difference struct {
	Key    string
	Before float64
	Now    float64
	Margin float64 // by which it may be worse
	Worse  bool
}

// compare returns the figures that both have, and how many of the baseline's were not measured now.
func compare(before, now []verdict) (all []difference, missing int) {
	for _, b := range before {
		n, ok := byKey(now, b.Key)
		if !ok {
			missing++
			continue
		}
		d := difference{Key: b.Key, Before: b.Value, Now: n.Value, Margin: margin(b, n)}
		loss := d.Before - d.Now
		if m, ok := metricNamed(b.Metric); ok && m.Better == lower {
			loss = -loss
		}
		d.Worse = loss > d.Margin
		all = append(all, d)
	}
	return all, missing
}

// margin is half of what each run's rounds scatter by, but at least 5 % and, for what is no ratio, the metric's floor.
func margin(before, now verdict) float64 {
	m := max(leastMargin*before.Value, (before.Spread.IQR+now.Spread.IQR)/2)
	if metric, ok := metricNamed(before.Metric); ok && before.Against == "" {
		m = max(m, metric.Floor)
	}
	return m
}

// printComparison writes the differences and reports whether none is worse.
func printComparison(w io.Writer, base *baseline, all []difference, missing int) bool {
	ok := true
	fmt.Fprintf(w, "\n## Compared with %s\n\n", base.Recorded.Format(time.DateTime))
	fmt.Fprintln(w, "| figure | before | now | may be worse by | |")
	fmt.Fprintln(w, "|---|---:|---:|---:|---|")
	for _, d := range all {
		word := "ok"
		if d.Worse {
			word, ok = "WORSE", false
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", d.Key, short(d.Before), short(d.Now), short(d.Margin), word)
	}
	if missing > 0 {
		fmt.Fprintf(w, "\n%d figures of the baseline were not measured in this run.\n", missing)
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "\nNothing in this run can be compared.")
		return false
	}
	return ok
}
