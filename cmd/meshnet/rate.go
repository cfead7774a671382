package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// rate is how many bytes per second a flag allows; 0 is no limit. People write it in bits, as links are sold. It is a
// pflag.Value.
type rate int64

// rateUnits are the units, largest first, in bits per second.
var rateUnits = []struct {
	name string
	bits float64
}{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// String is the rate in the largest unit that needs no fraction.
func (r *rate) String() string {
	if *r == 0 {
		return "0"
	}
	bits := float64(*r) * 8
	for _, u := range rateUnits {
		if n := bits / u.bits; n == math.Trunc(n) {
			return strconv.FormatFloat(n, 'f', -1, 64) + u.name
		}
	}
	return strconv.FormatFloat(bits, 'f', 0, 64) + "bit"
}

// Set reads a number and a unit, such as 20Mbit.
func (r *rate) Set(text string) error {
	if text == "0" {
		*r = 0
		return nil
	}
	for _, u := range rateUnits {
		number, ok := cutSuffixFold(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		bytes := n * u.bits / 8
		switch {
		case err != nil || math.IsNaN(n) || math.Signbit(n):
			return fmt.Errorf("%q is no number", number)
		case n == 0:
			*r = 0
			return nil
		case bytes < 1 || bytes >= math.MaxInt64:
			return errors.New("not within 8bit and 70000000Gbit")
		}
		*r = rate(bytes)
		return nil
	}
	return errors.New("not a number with a unit, such as 20Mbit (bit, kbit, Mbit, Gbit; 0: no limit)")
}

// Type is what the help calls it.
func (r *rate) Type() string { return "rate" }

func cutSuffixFold(text, suffix string) (string, bool) {
	if cut := len(text) - len(suffix); cut >= 0 && strings.EqualFold(text[cut:], suffix) {
		return text[:cut], true
	}
	return text, false
}
