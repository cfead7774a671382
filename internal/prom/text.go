package prom

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ContentType is the media type of what Append writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Errors of Append: a scraper would refuse the whole text.
var (
	ErrName  = errors.New("not a name of a metric or label")
	ErrType  = errors.New("neither counter nor gauge")
	ErrTwice = errors.New("there twice")
)

// maxExact is where float64 begins to leave out integers.
const maxExact = 1 << 53

// Append appends the families to b, in their order. Text that is not UTF-8 is made so. After an error what was
// appended is of no use.
func Append(b []byte, families []Family) ([]byte, error) {
	seen := make(map[string]bool, len(families))
	for _, f := range families {
		if seen[f.Name] {
			return b, fmt.Errorf("metric %s: %w", f.Name, ErrTwice)
		}
		seen[f.Name] = true
		var err error
		if b, err = appendFamily(b, f); err != nil {
			return b, fmt.Errorf("metric %q: %w", f.Name, err)
		}
	}
	return b, nil
}

func appendFamily(b []byte, f Family) ([]byte, error) {
	if err := checkName(f.Name, true); err != nil {
		return b, err
	}
	if f.Type != Counter && f.Type != Gauge {
		return b, fmt.Errorf("type %q: %w", f.Type, ErrType)
	}
	if len(f.Samples) == 0 {
		return b, nil
	}
	if f.Help != "" {
		b = append(b, "# HELP "+f.Name+" "...)
		b = append(b, escapeHelp(f.Help)...)
		b = append(b, '\n')
	}
	b = append(b, "# TYPE "+f.Name+" "+string(f.Type)+"\n"...)
	seen := make(map[string]bool, len(f.Samples))
	for _, s := range f.Samples {
		labels, err := labelSet(s.Labels)
		switch {
		case err != nil:
			return b, err
		case seen[labels]:
			return b, fmt.Errorf("sample %s: %w", labels, ErrTwice)
		}
		seen[labels] = true
		b = append(b, f.Name+labels+" "...)
		b = appendValue(b, s.Value)
		b = append(b, '\n')
	}
	return b, nil
}

// labelSet is labels as they are written, braces included; nothing for none.
func labelSet(labels []Label) (string, error) {
	if len(labels) == 0 {
		return "", nil
	}
	var text strings.Builder
	seen := make(map[string]bool, len(labels))
	for i, l := range labels {
		if err := checkName(l.Name, false); err != nil {
			return "", err
		}
		if seen[l.Name] {
			return "", fmt.Errorf("label %s: %w", l.Name, ErrTwice)
		}
		seen[l.Name] = true
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(l.Name + `="` + escapeLabel(l.Value) + `"`)
	}
	return "{" + text.String() + "}", nil
}

func checkName(name string, metric bool) error {
	if name == "" {
		return ErrName
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || metric && c == ':'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("%q: %w", name, ErrName)
		}
	}
	if !metric && strings.HasPrefix(name, "__") { // the scraper's own
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func escapeHelp(text string) string { return helpEscapes.Replace(strings.ToValidUTF8(text, "\uFFFD")) }

func escapeLabel(text string) string {
	return labelEscapes.Replace(strings.ToValidUTF8(text, "\uFFFD"))
}

// appendValue writes counts as people do, without an exponent.
func appendValue(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	case v == math.Trunc(v) && math.Abs(v) <= maxExact:
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}
