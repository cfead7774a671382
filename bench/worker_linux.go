package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// worker is a part of the program that runs as a process of its own, within a host: bench NAME flags.
type worker func(flags *flag.FlagSet, args []string) error

// workers by name.
func workers() map[string]worker {
	return map[string]worker{
		"tcp-receive": tcpReceive,
		"tcp-send":    tcpSend,
		"udp-receive": udpReceive,
		"udp-send":    udpSend,
		"flood":       flood,
		"ping":        pingLoop,
		"forward":     forward,
		"swarm":       playSwarm,
	}
}

// runWorker runs what args name and returns its exit code; ok is false when they name no worker.
func runWorker(args []string) (code int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	w, ok := workers()[args[0]]
	if !ok {
		return 0, false
	}
	if err := w(flag.NewFlagSet(args[0], flag.ExitOnError), args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 1, true
	}
	return 0, true
}

func (o outcome) print(w io.Writer) error { return json.NewEncoder(w).Encode(o) }

// What workers print before their outcome, a line each.
const (
	saysReady = "ready" // and the port
	saysBegin = "begin" // the window has begun
)

// window is the part of a load that counts: after a warm-up, for a while.
type window struct {
	warm, length time.Duration
	pids         []int // whose CPU is counted
	begun        time.Time
	before       usage
}

func (w *window) flags(f *flag.FlagSet) {
	f.DurationVar(&w.warm, "warm", 500*time.Millisecond, "time before the window")
	f.DurationVar(&w.length, "for", 3*time.Second, "the window")
	f.Func("pids", "daemons whose CPU is counted", func(text string) (err error) {
		w.pids, err = parsePIDs(text)
		return err
	})
}

// begin starts the window.
func (w *window) begin() (err error) {
	w.begun = time.Now()
	w.before, err = usageNow(w.pids)
	fmt.Println(saysBegin)
	return err
}

// end fills in what the window took.
func (w *window) end(o *outcome) error {
	after, err := usageNow(w.pids)
	used := after.since(w.before)
	o.Seconds = time.Since(w.begun).Seconds()
	o.Daemons, o.Machine = used.Daemons.Seconds(), used.Machine.Seconds()
	return err
}

func parsePIDs(text string) (pids []int, err error) {
	for word := range strings.SplitSeq(text, ",") {
		if word == "" {
			continue
		}
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func formatPIDs(pids []int) string {
	var words []string
	for _, pid := range pids {
		words = append(words, strconv.Itoa(pid))
	}
	return strings.Join(words, ",")
}
