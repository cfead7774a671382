package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
)

// stage is what the lab belongs to: it takes the place of a test. Guarded by mu.
type stage struct {
	log io.Writer
	dir string

	mu       sync.Mutex
	cleanups []func()
}

// refusal is what Fatalf and Skipf panic with: the lab knows no other end. run recovers it.
type refusal struct{ text string }

func (s *stage) Helper()      {}
func (s *stage) Failed() bool { return false } // what failed is shown where it fails

// ArtifactDir is a folder that goes with the run.
func (s *stage) ArtifactDir() string { return s.dir }

// Cleanup runs f at the end, the last one first.
func (s *stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

// Logf writes to the log.
func (s *stage) Logf(format string, args ...any) { fmt.Fprintf(s.log, format+"\n", args...) }

// Errorf writes to the log, too: what the lab reports so concerns its end.
func (s *stage) Errorf(format string, args ...any) { s.Logf(format, args...) }

// Fatalf ends the run.
func (s *stage) Fatalf(format string, args ...any) { panic(refusal{fmt.Sprintf(format, args...)}) }

// Skipf ends the run: a program that was asked to measure does not skip it.
func (s *stage) Skipf(format string, args ...any) { s.Fatalf(format, args...) }

// close runs the cleanups.
func (s *stage) close() {
	s.mu.Lock()
	cleanups := s.cleanups
	s.cleanups = nil
	s.mu.Unlock()
	for _, f := range slices.Backward(cleanups) {
		f()
	}
}
