package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/meshnet/meshnet/localapi"
)

// isTerminal tells whether people look at w.
func isTerminal(w any) bool {
	switch w := w.(type) {
	case *os.File:
		return term.IsTerminal(int(w.Fd()))
	case *lockedWriter:
		return w.terminal
	}
	return false
}

// colours tells whether w gets colours.
func (a *app) colours(w any) bool {
	return isTerminal(w) && !a.global.noColor && a.host.getenv("NO_COLOR") == ""
}

// document prints v as JSON: one line for programs, indented for people.
func (a *app) document(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	if isTerminal(a.stdout) {
		e.SetIndent("", "  ")
	}
	return failed("write", e.Encode(v))
}

// line prints v as one line of JSON.
func (a *app) line(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return failed("write", e.Encode(localapi.Document(v)))
}

// note prints a line for people beside the answer.
func (a *app) note(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }

// printable is text without control characters: names and reasons come from other machines.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
}

// text is what p points to, or "-".
func text(p *string) string {
	if p == nil || *p == "" {
		return "-"
	}
	return printable(*p)
}

// list is values with spaces between, or "-".
func list[T any](values []T) string {
	if len(values) == 0 {
		return "-"
	}
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = printable(fmt.Sprint(v))
	}
	return strings.Join(words, " ")
}

// short is a relay URL without its pin, which is for programs; anything else is as it was.
func short(text string) string {
	if !strings.HasPrefix(text, "https://") {
		return text
	}
	url, _, _ := strings.Cut(text, "#")
	return url
}

// places are relay URLs and names with spaces between, or "-".
func places(values []string) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = short(v)
	}
	return list(words)
}

// size is a count of bytes for people.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit && prefix < len("KMGTPE")-1 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[prefix])
}

// ago is how long before now t was.
func ago(now time.Time, t *time.Time) string {
	if t == nil {
		return "-"
	}
	d := max(now.Sub(*t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// milliseconds is a duration for people.
func milliseconds(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", *ms)
}

// table is columns for people. Owned by one goroutine.
type table struct {
	rows   [][]string
	styles map[[2]int]string // row, column → style
}

// The styles: SGR parameters (ECMA-48 §8.3.117).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	grey   = "90"
)

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// header is a row of names.
func (t *table) header(names ...string) {
	t.row(names...)
	for i := range names {
		t.style(i, bold)
	}
}

// style colours a cell of the last row.
func (t *table) style(column int, style string) {
	if t.styles == nil {
		t.styles = map[[2]int]string{}
	}
	t.styles[[2]int{len(t.rows) - 1, column}] = style
}

func (t *table) write(w io.Writer, colours bool) {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for r, row := range t.rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(paint(cell, t.styles[[2]int{r, i}], colours))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-len([]rune(cell))+2))
			}
		}
		fmt.Fprintln(w, b.String())
	}
}

func paint(text, style string, colours bool) string {
	if !colours || style == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}
