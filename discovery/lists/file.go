package lists

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	maxFile    = 1 << 20 // bytes
	maxEntries = 1024    // of a file; further ones are ignored
	maxBad     = 16      // bad lines that are named
)

// Why a file is not read.
var (
	errFileKind = errors.New("not a regular file")
	errFileSize = errors.New("larger than 1 MiB")
)

// badLine is a line that is no entry.
type badLine struct {
	line int // from 1
	err  error
}

// fileList is what a file says. Immutable.
type fileList struct {
	entries []Entry // without duplicates, in the file's order
	bad     []badLine
	moreBad int // bad lines beyond those
	ignored int // entries beyond 1024
}

// parseFile reads one entry a line, with comments from '#' to the end of a line.
func parseFile(text string) fileList {
	var list fileList
	seen := make(map[Entry]bool)
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, err := ParseEntry(line)
		switch {
		case err != nil && len(list.bad) >= maxBad:
			list.moreBad++
		case err != nil:
			list.bad = append(list.bad, badLine{line: number, err: err})
		case seen[e]:
		case len(list.entries) >= maxEntries:
			list.ignored++
		default:
			seen[e] = true
			list.entries = append(list.entries, e)
		}
	}
	return list
}

// complaint says what of a file is not used, or nothing.
func (l fileList) complaint() error {
	var parts []string
	if n := len(l.bad) + l.moreBad; n > 0 {
		parts = append(parts, fmt.Sprintf("%d bad lines, the first is line %d: %v", n, l.bad[0].line, l.bad[0].err))
	}
	if l.ignored > 0 {
		parts = append(parts, fmt.Sprintf("%d entries ignored, more than %d", l.ignored, maxEntries))
	}
	if len(parts) == 0 && len(l.entries) == 0 {
		parts = append(parts, "no entries")
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(strings.Join(parts, "; "))
}

// beyond reports whether the complaint says more than the bad lines by themselves.
func (l fileList) beyond() bool {
	return l.moreBad > 0 || l.ignored > 0 || len(l.entries) == 0
}

// fileMark tells versions of a file apart. Comparable.
type fileMark struct {
	size     int64
	modified time.Time
}

// readFile reads a file unless it is as it was at mark; then the text is "" and the mark the same.
func readFile(name string, mark fileMark) (string, fileMark, error) {
	info, err := os.Stat(name) // before opening: that would wait for the writer of a pipe
	if err != nil {
		return "", mark, plainFile(err)
	}
	now := fileMark{size: info.Size(), modified: info.ModTime()}
	switch {
	case !info.Mode().IsRegular():
		return "", mark, errFileKind
	case now.size > maxFile:
		return "", mark, errFileSize
	case now == mark:
		return "", mark, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", mark, plainFile(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", mark, plainFile(err)
	}
	if len(text) > maxFile {
		return "", mark, errFileSize
	}
	return string(text), now, nil
}

// plainFile is the error without the operation and the name, which is said beside it.
func plainFile(err error) error {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
