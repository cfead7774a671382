package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

var errPerfFormat = errors.New("not the output of perf script")

// frame is a function on a stack.
type frame struct {
	name   string
	kernel bool
}

// flame is a tree of stacks: how many samples were taken in a function and in what it called. Owned by one goroutine.
type flame struct {
	frame
	samples int
	calls   map[frame]*flame
}

func newFlame(f frame) *flame { return &flame{frame: f, calls: make(map[frame]*flame)} }

// add counts a sample, whose stack is given outermost first.
func (f *flame) add(stack []frame) {
	f.samples++
	for _, called := range stack {
		next := f.calls[called]
		if next == nil {
			next = newFlame(called)
			f.calls[called] = next
		}
		next.samples++
		f = next
	}
}

// children are the functions called, in the order of their names: so that two graphs can be laid side by side.
func (f *flame) children() []*flame {
	return slices.SortedFunc(maps.Values(f.calls), func(a, b *flame) int {
		if a.kernel != b.kernel && a.name == b.name {
			return map[bool]int{true: 1, false: -1}[a.kernel]
		}
		return cmp.Compare(a.name, b.name)
	})
}

// depth is how many functions the deepest stack has.
func (f *flame) depth() int {
	deepest := 0
	for _, called := range f.calls {
		deepest = max(deepest, 1+called.depth())
	}
	return deepest
}

// foldPerf reads what `perf script -F pid,ip,sym,dso` prints: for each sample a line with the process, then its stack,
// innermost first, then an empty line. Names say what a process is called in the graph.
func foldPerf(r io.Reader, names map[int]string) (*flame, error) {
	root := newFlame(frame{name: "all"})
	var stack []frame
	flush := func() {
		if len(stack) > 1 { // not only the process
			root.add(stack)
		}
		stack = stack[:0]
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // Go's names of generic functions are long
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), " ")
		switch {
		case line == "":
			flush()
		case line[0] == '\t':
			f, err := parseFrame(line)
			if err != nil || len(stack) == 0 {
				return nil, fmt.Errorf("%w: %q", errPerfFormat, line)
			}
			stack = slices.Insert(stack, 1, f)
		default:
			flush()
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				return nil, fmt.Errorf("%w: %q", errPerfFormat, line)
			}
			stack = append(stack, frame{name: cmp.Or(names[pid], "process "+strconv.Itoa(pid))})
		}
	}
	flush()
	return root, lines.Err()
}

// parseFrame reads a line of a stack: address, name, and in brackets the file that has it: a path, or something in
// square brackets. A name may hold anything.
func parseFrame(line string) (frame, error) {
	address, name, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		return frame{}, errPerfFormat
	}
	at, err := strconv.ParseUint(address, 16, 64)
	if err != nil {
		return frame{}, errPerfFormat
	}
	if end := max(strings.LastIndex(name, " (/"), strings.LastIndex(name, " ([")); end > 0 {
		name = name[:end]
	}
	return frame{name: name, kernel: at>>63 == 1}, nil // the upper half of the address space is the kernel's
}
