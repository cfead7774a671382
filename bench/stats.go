package main

import (
	"math"
	"slices"
)

// reading is one figure of one round.
type reading struct {
	Round int     `json:"round"` // from 1
	Value float64 `json:"value"`
	Noisy bool    `json:"noisy,omitempty"` // the machine was busy with something else before it
}

// summary is what the readings of one metric come to.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	IQR    float64 `json:"iqr"` // between the quartiles
	N      int     `json:"n"`
	Noisy  int     `json:"noisy"` // how many of the N
}

// summarize returns the summary of readings; of none, one with N 0.
func summarize(readings []reading) summary {
	var values []float64
	s := summary{N: len(readings)}
	for _, r := range readings {
		values = append(values, r.Value)
		if r.Noisy {
			s.Noisy++
		}
	}
	if s.N == 0 {
		return s
	}
	slices.Sort(values)
	s.Min, s.Median, s.Max = values[0], quantile(values, 0.5), values[s.N-1]
	s.IQR = quantile(values, 0.75) - quantile(values, 0.25)
	return s
}

// quantile of sorted values, linear between the two nearest (Hyndman and Fan 1996, type 7).
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// quotients divides readings round by round: what two carriers gave within the same minute. A round that either of
// them lacks, or in which the divisor is 0, is left out.
func quotients(top, bottom []reading) []reading {
	var all []reading
	for _, t := range top {
		i := slices.IndexFunc(bottom, func(b reading) bool { return b.Round == t.Round && b.Value != 0 })
		if i >= 0 {
			all = append(all, reading{Round: t.Round, Value: t.Value / bottom[i].Value, Noisy: t.Noisy || bottom[i].Noisy})
		}
	}
	return all
}
