package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Op is a file operation after which a crash may come.
type Op string

// The operations that Dir reports to its Step function.
const (
	OpWrite  Op = "write"
	OpSync   Op = "sync"
	OpRename Op = "rename"
)

// Dir is a folder of state files. It may be used by several goroutines for different files.
type Dir struct {
	path string
	step func(Op, string) error
}

// Open makes the folder (0700) where it is missing.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	return &Dir{path: path, step: func(Op, string) error { return nil }}, nil
}

// WithStep returns the same folder with a function called after each operation; its error ends the write there, as
// a crash at that point would.
func (d *Dir) WithStep(step func(op Op, name string) error) *Dir {
	return &Dir{path: d.path, step: step}
}

// Path is where the named file lies.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Read returns the whole named file, or fs.ErrNotExist.
func (d *Dir) Read(name string) ([]byte, error) { return os.ReadFile(d.Path(name)) }

// Remove deletes the named file. A missing one is no error.
func (d *Dir) Remove(name string) error {
	if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.syncFolder()
}

// Write replaces the named file: after a crash it holds either the old content or all of the new one.
func (d *Dir) Write(name string, data []byte) error {
	if err := d.write(name, data); err != nil {
		return fmt.Errorf("write %s: %w", d.Path(name), err)
	}
	return nil
}

func (d *Dir) write(name string, data []byte) error {
	f, err := os.CreateTemp(d.path, "."+name+".*.tmp") // 0600
	if err != nil {
		return err
	}
	temp := f.Name()
	err = d.fill(f, name, data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temp, d.Path(name))
	}
	if err != nil {
		_ = os.Remove(temp)
		return err
	}
	if err := d.step(OpRename, name); err != nil {
		return err
	}
	return d.syncFolder()
}

func (d *Dir) fill(f *os.File, name string, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := d.step(OpWrite, name); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return d.step(OpSync, name)
}

// SetAside renames a file that makes no sense to NAME.corrupt-TIME and returns the new path. A file that was set aside
// before stays.
func (d *Dir) SetAside(name string, now time.Time) (string, error) {
	to := d.aside(name, now)
	if err := os.Rename(d.Path(name), to); err != nil {
		return "", err
	}
	return to, d.syncFolder()
}

// KeepAside copies a file of which something will be cut off to NAME.corrupt-TIME and returns the new path.
func (d *Dir) KeepAside(name string, now time.Time) (string, error) {
	data, err := d.Read(name)
	if err != nil {
		return "", err
	}
	to := d.aside(name, now)
	return to, d.Write(filepath.Base(to), data)
}

// aside is a path that is free; times repeat when clocks are wrong.
func (d *Dir) aside(name string, now time.Time) string {
	to := d.Path(name) + ".corrupt-" + now.UTC().Format("20060102T150405.000")
	free := to
	for i := 2; ; i++ {
		if _, err := os.Lstat(free); err != nil {
			return free
		}
		free = fmt.Sprintf("%s-%d", to, i)
	}
}

// Sweep removes what interrupted writes left behind. Call it once at start, under the folder's lock.
func (d *Dir) Sweep() error {
	left, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, f := range left {
		if !strings.HasPrefix(f.Name(), ".") || !strings.HasSuffix(f.Name(), ".tmp") {
			continue
		}
		if err := os.Remove(d.Path(f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
