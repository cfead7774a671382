package udp

import "testing"

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int
		max   int
		want  int
	}{
		"one":                    {[]int{100}, maxTrain4, 1},
		"equal":                  {[]int{100, 100, 100}, maxTrain4, 3},
		"shorter tail ends it":   {[]int{100, 100, 50, 50}, maxTrain4, 3},
		"longer begins another":  {[]int{100, 101}, maxTrain4, 1},
		"empty alone":            {[]int{0, 0}, maxTrain4, 1},
		"empty is no tail":       {[]int{100, 0}, maxTrain4, 1},
		"segments":               {repeat(10, 100), maxTrain4, 64},
		"bytes inclusive, IPv4":  {[]int{65506, 1}, maxTrain4, 2},
		"bytes exceeded, IPv4":   {[]int{65506, 2}, maxTrain4, 1},
		"bytes inclusive, IPv6":  {[]int{65526, 1}, maxTrain6, 2},
		"bytes exceeded, middle": {repeat(9000, 20), maxTrain4, 7},
	} {
		t.Run(name, func(t *testing.T) {
			if got := run(datagrams(c.sizes...), c.max); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
