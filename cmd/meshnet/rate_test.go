package main

import "testing"

func TestRate(t *testing.T) {
	for _, tt := range []struct {
		text  string
		bytes int64
		back  string
	}{
		{"0", 0, "0"},
		{"0Mbit", 0, "0"},
		{"8bit", 1, "8bit"},
		{"20Mbit", 2_500_000, "20Mbit"},
		{"20 mbit", 2_500_000, "20Mbit"},
		{"1.5Gbit", 187_500_000, "1500Mbit"},
		{"64kbit", 8000, "64kbit"},
		{"100bit", 12, "96bit"},
		{"2Gbit", 250_000_000, "2Gbit"},
	} {
		var r, again rate
		if err := r.Set(tt.text); err != nil || int64(r) != tt.bytes || r.String() != tt.back {
			t.Errorf("%q: %d %s, %v", tt.text, r, r.String(), err)
		}
		if err := again.Set(r.String()); err != nil || again != r { // a detached node gets it as text
			t.Errorf("%s is read back as %d, %v", r.String(), again, err)
		}
	}
	for _, text := range []string{"", "20", "-1Mbit", "Mbit", "xMbit", "NaNMbit", "1e300Gbit", "1bit", "20MB", "20Mbit/s", "-0Mbit", "InfMbit"} {
		r := rate(7)
		if err := r.Set(text); err == nil || r != 7 {
			t.Errorf("%q: %d, %v", text, r, err)
		}
	}
}
