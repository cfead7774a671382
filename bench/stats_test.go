package main

import (
	"math"
	"testing"
)

func series(values ...float64) (all []reading) {
	for i, v := range values {
		all = append(all, reading{Round: i + 1, Value: v})
	}
	return all
}

func TestSummarize(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []float64
		want   summary
	}{
		{"none", nil, summary{}},
		{"one", []float64{7}, summary{Median: 7, Min: 7, Max: 7, N: 1}},
		{"even", []float64{4, 1, 3, 2}, summary{Median: 2.5, Min: 1, Max: 4, IQR: 1.5, N: 4}},
		{"odd", []float64{50, 10, 40, 20, 30}, summary{Median: 30, Min: 10, Max: 50, IQR: 20, N: 5}},
	} {
		if got := summarize(series(tt.values...)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	noisy := series(1, 2)
	noisy[1].Noisy = true
	if got := summarize(noisy); got.Noisy != 1 {
		t.Errorf("%d noisy, want 1", got.Noisy)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 101)
	for i := range hundred {
		hundred[i] = float64(i)
	}
	if got := quantile(hundred, 0.99); got != 99 {
		t.Errorf("99th percentile %v, want 99", got)
	}
	if got := quantile(hundred, 1); got != 100 {
		t.Errorf("the most %v, want 100", got)
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("the median of nothing is a number")
	}
}

// What is divided was measured in the same round, whatever else is missing.
func TestQuotients(t *testing.T) {
	top := []reading{{Round: 1, Value: 10}, {Round: 2, Value: 30}, {Round: 4, Value: 8, Noisy: true}, {Round: 5, Value: 1}}
	bottom := []reading{{Round: 2, Value: 10}, {Round: 3, Value: 1}, {Round: 4, Value: 2}, {Round: 5, Value: 0}}
	got := quotients(top, bottom)
	want := []reading{{Round: 2, Value: 3}, {Round: 4, Value: 4, Noisy: true}}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v, want %+v", got, want)
	}
}
