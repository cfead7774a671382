package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// machine is where it was measured.
type machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// report is a whole run.
type report struct {
	Started time.Time `json:"started"`
	Took    float64   `json:"took_s"`
	Machine machine   `json:"machine"`
	Absent  []string  `json:"absent"` // carriers that are not on this machine
	Tables  []*table  `json:"tables"`
}

// print writes everything as Markdown.
func (r *report) print(w io.Writer) {
	took := time.Duration(r.Took * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(w, "# meshnet beside others\n\n%s, %v; %s, %d CPUs, Linux %s, %s\n",
		r.Started.Format(time.DateTime), took, r.Machine.CPU, r.Machine.CPUs, r.Machine.Kernel, r.Machine.Go)
	for _, why := range r.Absent {
		fmt.Fprintf(w, "\nNot here: %s.\n", why)
	}
	for _, t := range r.Tables {
		t.print(w)
		printBars(w, t.Verdicts)
	}
}

// complete reports whether every measurement gave something.
func (r *report) complete() bool {
	for _, t := range r.Tables {
		if len(t.Failures) > 0 {
			return false
		}
	}
	return true
}

// tableFor is the table of an MTU, or an empty one.
func (r *report) tableFor(mtu string) *table {
	for _, t := range r.Tables {
		if t.MTU == mtu {
			return t
		}
	}
	return newTable(mtu)
}

// baseline is what later runs are compared with: the first table's verdicts.
func (r *report) baseline() *baseline {
	b := &baseline{Recorded: r.Started, Machine: r.Machine}
	if len(r.Tables) > 0 {
		b.MTU, b.Verdicts = r.Tables[0].MTU, r.Tables[0].Verdicts
	}
	return b
}

func writeJSON(file string, value any) error {
	data, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
