package main

import (
	"os"
	"testing"
	"time"
)

func TestParseProc(t *testing.T) {
	const stat = "4242 (odd) name) S 1 4242 4242 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 8 0 1000 1 2 3\n"
	for _, tt := range []struct {
		name  string
		parse func(string) (time.Duration, error)
		text  string
		want  time.Duration // negative: an error
	}{
		{"schedstat", parseSchedstat, "1500000000 70 8\n", 1500 * time.Millisecond},
		{"schedstat, short", parseSchedstat, "15\n", -1},
		{"schedstat, not a number", parseSchedstat, "x 1 2\n", -1},
		{"stat", parseStat, stat, 2 * time.Second},
		{"stat, empty", parseStat, "", -1},
		{"stat, cut off", parseStat, "1 (a) S 1 2", -1},
		{"machine", parseMachine, "cpu  100 10 50 9999 888 5 5 30 77 0\ncpu0 1\n", 2 * time.Second},
		{"machine, another line", parseMachine, "cpu0 1 2 3 4 5 6 7 8\n", -1},
		{"machine, short", parseMachine, "cpu 1 2\n", -1},
	} {
		got, err := tt.parse(tt.text)
		if tt.want < 0 != (err != nil) || err == nil && got != tt.want {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestParseResident(t *testing.T) {
	if got, err := parseResident("Name:\tx\nVmRSS:\t   25600 kB\nRssAnon:\t1 kB\n"); got != 25 || err != nil {
		t.Errorf("%v, %v; want 25 MB", got, err)
	}
	if _, err := parseResident("Name:\tx\n"); err == nil {
		t.Error("a process without memory was understood")
	}
}

func TestUsageNow(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs Linux's /proc")
	}
	pids := []int{os.Getpid()}
	before, err := usageNow(pids)
	if err != nil {
		t.Fatal(err)
	}
	var used usage
	for deadline := time.Now().Add(10 * time.Second); used.Daemons < 20*time.Millisecond; {
		if time.Now().After(deadline) {
			t.Fatalf("no CPU time seen: %+v", used)
		}
		after, err := usageNow(pids)
		if err != nil {
			t.Fatal(err)
		}
		used = after.since(before)
	}
	if _, err := usageNow([]int{1 << 30}); err == nil {
		t.Error("the time of a process that is not there was read")
	}
	if mb, err := residentMB(os.Getpid()); err != nil || mb <= 0 {
		t.Errorf("own memory: %v MB, %v", mb, err)
	}
}
