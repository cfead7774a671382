package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

// The bars.
const (
	barFirst     = 1500 * time.Millisecond
	barDirect    = 3 * time.Second
	barPredicted = 10 * time.Second
	// slack is how many times longer a busy machine may take in tests.
	slack = 3
)

// cell is what came of a pair: the figures of pings from the first to the second, and the other way.
type cell struct {
	a, b place
	goal goal
	runs [2]figures
	err  error
	said string // by both ends, where something was missed
}

// fill measures every pair of places, width of them beside each other.
func (m *matrix) fill(all []place, width int) []*cell {
	var cells []*cell
	for i, a := range all {
		for _, b := range all[i:] {
			cells = append(cells, &cell{a: a, b: b, goal: expect(a, b, m.relay != nil)})
		}
	}
	m.do(len(cells), width, func(i int) {
		if c := cells[i]; c.goal.outcome != apart {
			c.err = m.fillCell(c)
		}
	})
	return cells
}

// fillCell measures both directions, each after a cold start of both ends.
func (m *matrix) fillCell(c *cell) error {
	ctx, cancel := context.WithTimeout(m.ctx, 3*time.Minute)
	defer cancel()
	p, err := m.pair(c.a, c.b, "--userspace")
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.found(ctx); err != nil {
		return err
	}
	limit := slack * barDirect
	if c.goal.outcome == predicted {
		limit = barPredicted
	}
	for from := range c.runs {
		if err := p.cold(ctx); err != nil {
			return err
		}
		if c.runs[from], err = p.measure(ctx, from, limit); err != nil {
			return fmt.Errorf("%w\n%s", err, p.explain(ctx))
		}
		if c.runs[from].missed(c.goal, 1) != "" {
			c.said += p.explain(ctx)
		}
	}
	for i := range p.ends {
		if m.relay == nil {
			break // members alone do not always tell
		}
		if err := p.findsNAT(ctx, i); err != nil {
			return fmt.Errorf("%w\n%s", err, p.explain(ctx))
		}
	}
	return nil
}

// missed says which bar the figures are beyond, each that many times as long; "": none.
func (f *figures) missed(want goal, times time.Duration) string {
	switch {
	case f.first > times*barFirst:
		return fmt.Sprintf("the first reply came after %v", f.first)
	case want.outcome == direct && f.direct == 0:
		return fmt.Sprintf("it is not direct but %q", f.word())
	case want.outcome == direct && f.direct > times*barDirect:
		return fmt.Sprintf("it was direct after %v", f.direct)
	case want.outcome == carried && f.direct > 0:
		return "it is direct, against all odds"
	case want.outcome == carried && !strings.Contains(f.word(), want.because):
		return fmt.Sprintf("the reason is %q, want %q", f.word(), want.because)
	}
	return ""
}

// word is the kind of path in the end, and why it is not better.
func (f *figures) word() string {
	if f.path.Reason == nil || f.path.Kind == "direct" {
		return f.path.Kind
	}
	return *f.path.Reason
}

// verdict says what is wrong with a cell, with bars that many times as long; "": nothing.
func (c *cell) verdict(times time.Duration) string {
	if c.err != nil {
		return fmt.Sprintf("%s × %s: %v", c.a.name, c.b.name, c.err)
	}
	var all []string
	for from, ends := range [2][2]place{{c.a, c.b}, {c.b, c.a}} {
		if miss := c.runs[from].missed(c.goal, times); c.goal.outcome != apart && miss != "" {
			all = append(all, fmt.Sprintf("%s to %s: %s", ends[0].name, ends[1].name, miss))
		}
	}
	return strings.Join(all, "; ")
}

// text is the cell in a table: the path in the end, and how many milliseconds the first reply took, and the first direct
// one.
func (c *cell) text(from int) string {
	f := c.runs[from]
	switch {
	case c.goal.outcome == apart:
		return "–"
	case c.err != nil || f.first == 0:
		return "failed"
	case f.direct == 0:
		return fmt.Sprintf("%s %d", f.path.Kind, f.first.Milliseconds())
	}
	return fmt.Sprintf("direct %d, %d", f.first.Milliseconds(), f.direct.Milliseconds())
}

// matrixTable has all cells as Markdown: the row pings the column.
func matrixTable(all []place, cells []*cell) string {
	var b strings.Builder
	b.WriteString("| from ↓ to → |")
	for _, p := range all {
		fmt.Fprintf(&b, " %s |", p.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)) + "\n")
	for _, from := range all {
		fmt.Fprintf(&b, "| **%s** |", from.name)
		for _, to := range all {
			for _, c := range cells {
				switch {
				case c.a.name == from.name && c.b.name == to.name:
					fmt.Fprintf(&b, " %s |", c.text(0))
				case c.b.name == from.name && c.a.name == to.name:
					fmt.Fprintf(&b, " %s |", c.text(1))
				}
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// matrixHelp is who there is between the two of a pair.
var matrixHelp = []struct {
	name  string
	relay bool
}{{"relay server", true}, {"common member", false}}

// TestNATMatrix measures every pair of places once, in both directions.
func TestNATMatrix(t *testing.T) {
	for _, help := range matrixHelp {
		t.Run(help.name, func(t *testing.T) {
			cells := newMatrix(t, help.relay).fill(places(), 8)
			t.Logf("path, ms to the first reply, ms to the first direct one\n%s", matrixTable(places(), cells))
			for _, c := range cells {
				if bad := c.verdict(slack); bad != "" {
					t.Errorf("%s\n%s", bad, c.said)
				} else if slow := c.verdict(1); slow != "" {
					t.Logf("beyond a bar: %s\n%s", slow, c.said)
				}
			}
		})
	}
}

// BenchmarkBarNATMatrix prints the NAT matrix as Markdown, and what in it is beyond a bar: a first reply after at most
// 1.5 s, and a direct one after at most 3 s where hole punching can work.
func BenchmarkBarNATMatrix(b *testing.B) {
	for _, help := range matrixHelp {
		b.Run(help.name, func(b *testing.B) {
			cells := newMatrix(b, help.relay).fill(places(), 3)
			fmt.Printf("\n\nWith a %s:\n\n%s\n", help.name, matrixTable(places(), cells))
			beyond := 0
			var firsts, directs []time.Duration
			for _, c := range cells {
				if bad := c.verdict(1); bad != "" {
					beyond++
					fmt.Fprintf(os.Stderr, "beyond a bar: %s\n%s\n", bad, c.said)
				}
				for _, f := range c.runs {
					if f.first > 0 {
						firsts = append(firsts, f.first)
					}
					if f.direct > 0 && c.goal.outcome == direct {
						directs = append(directs, f.direct)
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(beyond), "pairs-beyond")
			reportSpread(b, firsts, "first")
			reportSpread(b, directs, "direct")
		})
	}
}

// reportSpread reports the median and the worst, in milliseconds.
func reportSpread(b *testing.B, all []time.Duration, what string) {
	b.Helper()
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	b.ReportMetric(ms(all[len(all)/2]), "ms-"+what+"-median")
	b.ReportMetric(ms(all[len(all)-1]), "ms-"+what+"-worst")
}

// TestNATMatrixWithTUN is one pair of the matrix with real interfaces and the ping of the OS.
func TestNATMatrixWithTUN(t *testing.T) {
	m := newMatrix(t, true)
	m.do(1, 1, func(int) {
		ctx, cancel := context.WithTimeout(m.ctx, 2*time.Minute)
		defer cancel()
		p, err := m.pair(at(netlab.PortRestricted), at(netlab.AddressRestricted))
		if err == nil {
			err = p.found(ctx)
		}
		for from := range p.ends {
			if err == nil {
				err = p.cold(ctx)
			}
			if err != nil {
				break
			}
			a, b := p.ends[from], p.ends[1-from]
			var took time.Duration
			if took, err = a.tryPing(b.ip4, 20*time.Second); err == nil && took > slack*barFirst {
				err = fmt.Errorf("first reply after %v", took)
			}
			t.Logf("%s pings %s: first reply after %v", a.name, b.name, took)
			if err == nil {
				var f figures
				f, err = p.measure(ctx, from, slack*barDirect)
				if miss := f.missed(p.goal, slack); err == nil && miss != "" {
					err = fmt.Errorf("%s\n%s", miss, p.explain(ctx))
				}
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// predict has a node behind a port-restricted NAT and one behind a symmetric one ping each other, runs times after a cold
// start of both, width pairs beside each other. It returns how long each run took to the first direct reply, 0 for those
// that came to nothing.
func (m *matrix) predict(runs, width int) []time.Duration {
	var mu sync.Mutex
	var all []time.Duration // guarded by mu
	next := 0               // guarded by mu
	take := func() (i int, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= runs
	}
	m.do(width, width, func(int) {
		ctx, cancel := context.WithTimeout(m.ctx, 15*time.Minute)
		defer cancel()
		p, err := m.pair(at(netlab.PortRestricted), at(netlab.Symmetric), "--userspace")
		if err == nil {
			err = p.found(ctx)
		}
		for i, ok := take(); ok; i, ok = take() {
			var f figures
			if err == nil {
				err = p.cold(ctx)
			}
			if err == nil {
				f, err = p.measure(ctx, i%2, barPredicted)
			}
			if err != nil {
				m.t.Errorf("run %d: %v", i, err)
			} else if f.direct == 0 {
				m.t.Logf("run %d: %s", i, f.word())
			}
			mu.Lock()
			all = append(all, f.direct)
			mu.Unlock()
		}
	})
	return all
}

// succeeded are those that came to something.
func succeeded(all []time.Duration) []time.Duration {
	return slices.DeleteFunc(slices.Clone(all), func(d time.Duration) bool { return d == 0 })
}

// TestPrediction guesses ports twenty times: at most two of them may come to nothing within 10 s.
func TestPrediction(t *testing.T) {
	const runs = 20
	all := newMatrix(t, true).predict(runs, 5)
	ok := succeeded(all)
	t.Logf("%d of %d runs direct: %v", len(ok), runs, all)
	if len(ok) < runs*9/10 {
		t.Errorf("direct in %d of %d runs", len(ok), runs)
	}
}

// BenchmarkBarPrediction prints how many of a hundred runs of port prediction came to a direct path within 10 s: at least
// ninety. With -short there are twenty runs.
func BenchmarkBarPrediction(b *testing.B) {
	runs := 100
	if testing.Short() {
		runs = 20
	}
	ok := succeeded(newMatrix(b, true).predict(runs, 4))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(ok))/float64(runs)*100, "%-direct")
	reportSpread(b, ok, "direct")
}
