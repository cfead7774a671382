package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const (
	flameRate = 499 // a second and CPU; not a round number, so that it keeps step with no timer
	perfName  = "perf"
)

// absentPerf says what a flame graph lacks, or nothing.
func absentPerf() string {
	if _, err := exec.LookPath(perfName); err != nil {
		return fmt.Sprintf("flame graph: no %s in PATH", perfName)
	}
	return ""
}

// flame samples both daemons of a lane while one TCP stream saturates it, and writes a flame graph.
func (g *gauge) flame(ctx context.Context, l *lane, dir, file string) error {
	ctx, cancel := context.WithTimeout(ctx, flameTime+g.plan.warm+2*afterglow)
	defer cancel()
	load, err := g.startTCP(ctx, l, l.a, l.b, 1, flameTime+2*time.Second) // perf needs a moment to begin
	if err != nil {
		return err
	}
	defer load.sender.proc.Kill()
	defer load.receiver.proc.Kill()
	if err := load.receiver.proc.WaitOutput(ctx, saysBegin); err != nil {
		return err
	}
	data := filepath.Join(dir, "perf.data")
	defer os.Remove(data)
	record := exec.CommandContext(ctx, perfName, "record", "-q", "-F", strconv.Itoa(flameRate), "-g", "-p", formatPIDs(l.pids()),
		"-o", data, "--", "sleep", strconv.Itoa(int(flameTime.Seconds())))
	record.Cancel = func() error { return record.Process.Signal(os.Interrupt) }
	record.WaitDelay = startTime
	if out, err := record.CombinedOutput(); err != nil {
		return fmt.Errorf("perf record: %w\n%s", err, out)
	}
	names := map[int]string{l.a.daemon.Pid(): "the sender's node", l.b.daemon.Pid(): "the receiver's node"}
	root, err := foldData(ctx, data, names)
	if err != nil {
		return err
	}
	if root.samples == 0 {
		return errors.New("perf took no samples")
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	err = drawFlame(f, l.name+" under one TCP stream: where the CPU goes", root)
	return errors.Join(err, f.Close())
}

// foldData reads what perf recorded.
func foldData(ctx context.Context, data string, names map[int]string) (*flame, error) {
	// Without inlined functions: to look each of them up takes minutes.
	script := exec.CommandContext(ctx, perfName, "script", "-i", data, "--no-inline", "-F", "pid,ip,sym,dso")
	out, err := script.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := script.Start(); err != nil {
		return nil, err
	}
	root, foldErr := foldPerf(out, names)
	if foldErr != nil {
		_ = script.Process.Kill() // it would wait for its reader
	}
	return root, errors.Join(foldErr, script.Wait())
}
