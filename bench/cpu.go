package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userHz is the unit of CPU times in /proc, the same on every Linux system that Go runs on.
const userHz = 100

var errProcFormat = errors.New("not the format of proc(5)")

// usage is CPU time used up to a moment.
type usage struct {
	Daemons time.Duration // of the processes that were asked for
	Machine time.Duration // of everything, the hypervisor's theft included
}

func (u usage) since(before usage) usage {
	return usage{Daemons: u.Daemons - before.Daemons, Machine: u.Machine - before.Machine}
}

// usageNow reads what the processes and the machine have used so far.
func usageNow(pids []int) (usage, error) {
	var u usage
	for _, pid := range pids {
		d, err := processTime(pid)
		if err != nil {
			return u, err
		}
		u.Daemons += d
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	u.Machine, err = parseMachine(string(text))
	return u, err
}

// processTime sums up the CPU time of a process's threads, in nanoseconds where the kernel counts them so
// (CONFIG_SCHED_INFO). A thread that has ended is not in it; Go programs end none while they carry packets.
func processTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	found := false
	for _, task := range tasks {
		text, err := os.ReadFile(task + "/schedstat")
		if err != nil {
			continue // it ended meanwhile, or the kernel does not count
		}
		d, err := parseSchedstat(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s/schedstat: %w", task, err)
		}
		sum, found = sum+d, true
	}
	if found {
		return sum, nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(text))
}

// parseSchedstat reads the time on the CPU, the first of three fields.
func parseSchedstat(text string) (time.Duration, error) {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return 0, errProcFormat
	}
	ns, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0, errProcFormat
	}
	return time.Duration(ns), nil
}

// parseStat reads utime and stime of /proc/PID/stat. The name before them may hold spaces and brackets.
func parseStat(text string) (time.Duration, error) {
	end := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:])
	const utime = 11 // field 14 of proc(5), counted from behind the name
	if end < 0 || len(fields) < utime+2 {
		return 0, errProcFormat
	}
	user, err1 := strconv.ParseInt(fields[utime], 10, 64)
	system, err2 := strconv.ParseInt(fields[utime+1], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, errProcFormat
	}
	return time.Duration(user+system) * time.Second / userHz, nil
}

// parseMachine reads the first line of /proc/stat and returns all time that was not idle.
func parseMachine(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	const idle, iowait, steal = 4, 5, 8
	if len(fields) <= steal || fields[0] != "cpu" {
		return 0, errProcFormat
	}
	var sum int64
	for i := 1; i <= steal; i++ { // guest time, behind it, is part of user time
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, errProcFormat
		}
		if i != idle && i != iowait {
			sum += n
		}
	}
	return time.Duration(sum) * time.Second / userHz, nil
}

// residentMB is how much of a process is in memory, in MB of 2²⁰ bytes.
func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseResident(string(text))
}

func parseResident(text string) (float64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			if err != nil {
				return 0, errProcFormat
			}
			return kb / 1024, nil
		}
	}
	return 0, errProcFormat
}
