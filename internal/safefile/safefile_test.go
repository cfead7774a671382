package safefile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func open(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// names lists the folder.
func names(t testing.TB, d *Dir) []string {
	t.Helper()
	entries, err := os.ReadDir(d.path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func want(t testing.TB, d *Dir, name, content string) {
	t.Helper()
	if got, err := d.Read(name); err != nil || string(got) != content {
		t.Errorf("%s holds %q, %v; want %q", name, got, err, content)
	}
}

func TestModes(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "a", "state"))
	if err := d.Write("whole", []byte("x")); err != nil {
		t.Fatal(err)
	}
	openLog(t, d, "log").append("x")
	for name, mode := range map[string]os.FileMode{"": os.ModeDir | 0o700, "whole": 0o600, "log": 0o600} {
		if info, err := os.Stat(d.Path(name)); err != nil || info.Mode() != mode {
			t.Errorf("%q: %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
}

func TestWriteReplaces(t *testing.T) {
	d := open(t, t.TempDir())
	if _, err := d.Read("f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of nothing: %v", err)
	}
	for _, content := range []string{"first", "", "a longer third content"} {
		if err := d.Write("f", []byte(content)); err != nil {
			t.Fatal(err)
		}
		want(t, d, "f", content)
	}
	if got := names(t, d); !slices.Equal(got, []string{"f"}) {
		t.Errorf("the folder holds %q", got)
	}
	if err := errors.Join(d.Remove("f"), d.Remove("f")); err != nil {
		t.Errorf("remove, and again: %v", err)
	}
}

var errCrash = errors.New("crash")

// TestWriteOrder: what is renamed is synced, and a write that ends anywhere leaves the old content or the new one.
func TestWriteOrder(t *testing.T) {
	steps := []Op{OpWrite, OpSync, OpRename}
	for n := range len(steps) + 1 {
		d := open(t, t.TempDir())
		if err := d.Write("f", []byte("old")); err != nil {
			t.Fatal(err)
		}
		var seen []Op
		err := d.WithStep(func(op Op, name string) error {
			seen = append(seen, op)
			// What a crash at this point would leave: the file itself, whatever lies beside it.
			expect := "old"
			if op == OpRename {
				expect = "new"
			}
			want(t, d, "f", expect)
			if name != "f" {
				t.Errorf("step of %q", name)
			}
			if len(seen) == n+1 {
				return errCrash
			}
			return nil
		}).Write("f", []byte("new"))
		if !slices.Equal(seen, steps[:min(n+1, len(steps))]) {
			t.Errorf("steps %v", seen)
		}
		if errors.Is(err, errCrash) != (n < len(steps)) {
			t.Errorf("crash at %d: %v", n, err)
		}
		if n < 2 {
			want(t, d, "f", "old")
		} else {
			want(t, d, "f", "new")
		}
		if got := names(t, d); !slices.Equal(got, []string{"f"}) {
			t.Errorf("the folder holds %q", got)
		}
	}
}

func TestSweep(t *testing.T) {
	// A name that would be a pattern of a glob.
	d := open(t, filepath.Join(t.TempDir(), "a[b]*?"))
	for _, name := range []string{".f.123.tmp", ".tmp", "f.tmp", ".f", "f"} {
		if err := os.WriteFile(d.Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, d); !slices.Equal(got, []string{".f", "f", "f.tmp"}) {
		t.Errorf("after the sweep: %q", got)
	}
}

func TestSetAside(t *testing.T) {
	d := open(t, t.TempDir())
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if _, err := d.SetAside("f", now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing to set aside: %v", err)
	}
	paths := map[string]string{}
	for _, content := range []string{"one", "two", "three"} { // at the same time, as a clock that stands would have it
		if err := d.Write("f", []byte(content)); err != nil {
			t.Fatal(err)
		}
		to, err := d.SetAside("f", now)
		if err != nil || !strings.HasPrefix(to, d.Path("f")+".corrupt-20260301T120000.000") {
			t.Fatalf("set aside as %s, %v", to, err)
		}
		paths[to] = content
	}
	if err := d.Write("f", []byte("four")); err != nil {
		t.Fatal(err)
	}
	to, err := d.KeepAside("f", now)
	if err != nil {
		t.Fatal(err)
	}
	paths[to] = "four"
	want(t, d, "f", "four")
	if len(paths) != 4 {
		t.Fatalf("set aside as %v", paths)
	}
	for path, content := range paths {
		want(t, d, filepath.Base(path), content)
	}
}

// testLog is an open log of a test.
type testLog struct {
	*Log
	t    testing.TB
	held []string // what it held when it was opened
	torn int64
}

func openLog(t testing.TB, d *Dir, name string) *testLog {
	t.Helper()
	l := &testLog{t: t}
	var err error
	l.Log, l.torn, err = d.OpenLog(name, func(r []byte) error {
		l.held = append(l.held, string(r))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (l *testLog) append(records ...string) {
	l.t.Helper()
	var raw [][]byte
	for _, r := range records {
		raw = append(raw, []byte(r))
	}
	if err := l.Append(raw...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *testLog) want(torn int64, damaged bool, held ...string) {
	l.t.Helper()
	if !slices.Equal(l.held, held) || l.torn != torn || l.Damaged() != damaged {
		l.t.Errorf("held %q, torn %d, damaged %v; want %q, %d, %v", l.held, l.torn, l.Damaged(), held, torn, damaged)
	}
}

func TestLog(t *testing.T) {
	d := open(t, t.TempDir())
	l := openLog(t, d, "log")
	l.want(0, false)
	l.append("one", "two")
	l.append()
	l.append("three")
	if l.Size() != 3*recordHeader+11 {
		t.Errorf("size %d", l.Size())
	}
	for _, bad := range []struct {
		record []byte
		err    error
	}{{nil, ErrRecordEmpty}, {make([]byte, MaxRecord+1), ErrRecordTooLarge}} {
		if err := l.Append([]byte("with it"), bad.record); !errors.Is(err, bad.err) {
			t.Errorf("append of %d bytes: %v", len(bad.record), err)
		}
	}
	l.append(strings.Repeat("x", MaxRecord))
	openLog(t, d, "log").want(0, false, "one", "two", "three", strings.Repeat("x", MaxRecord))
	stop := errors.New("stop")
	if _, _, err := d.OpenLog("log", func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of each: %v", err)
	}
}

// raw is a log's file.
func raw(t testing.TB, d *Dir, name string) []byte {
	t.Helper()
	data, err := d.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func put(t testing.TB, d *Dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(d.Path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTornLog cuts a log at every byte: what was whole is held, the rest is cut off by the next append and only then.
func TestTornLog(t *testing.T) {
	d := open(t, t.TempDir())
	records := []string{"first", "second record", "third"}
	openLog(t, d, "log").append(records...)
	whole := raw(t, d, "log")
	ends := []int{0, recordHeader + 5, 2*recordHeader + 18, 3*recordHeader + 23}
	for size := range len(whole) + 1 {
		put(t, d, "log", whole[:size])
		n := 0
		for n < len(records) && ends[n+1] <= size {
			n++
		}
		l := openLog(t, d, "log")
		l.want(int64(size-ends[n]), false, records[:n]...)
		if got := raw(t, d, "log"); len(got) != size {
			t.Fatalf("opening cut %d bytes off", size-len(got))
		}
		l.append("next")
		l.append("and another")
		openLog(t, d, "log").want(0, false, append(slices.Clone(records[:n]), "next", "and another")...)
	}
}

// TestZeroTail: some file systems leave blocks of zeros behind after a crash. They are no records.
func TestZeroTail(t *testing.T) {
	d := open(t, t.TempDir())
	openLog(t, d, "log").append("one")
	put(t, d, "log", append(raw(t, d, "log"), make([]byte, 4096)...))
	l := openLog(t, d, "log")
	l.want(4096, false, "one")
	l.append("two")
	openLog(t, d, "log").want(0, false, "one", "two")
}

// TestBitFlips flips every bit of a log: no record is ever handed out that was not appended, and those before the flip
// are held.
func TestBitFlips(t *testing.T) {
	d := open(t, t.TempDir())
	records := []string{"first", "second record", "third"}
	openLog(t, d, "log").append(records...)
	whole := raw(t, d, "log")
	damaged := 0
	for i := range whole {
		for bit := range 8 {
			data := bytes.Clone(whole)
			data[i] ^= 1 << bit
			put(t, d, "log", data)
			l := openLog(t, d, "log")
			hit := 0 // the record that the flip is in
			for end := 0; ; hit++ {
				if end += recordHeader + len(records[hit]); i < end {
					break
				}
			}
			if !slices.Equal(l.held, records[:hit]) || l.torn == 0 {
				t.Fatalf("bit %d of byte %d: held %q, torn %d", bit, i, l.held, l.torn)
			}
			if l.Damaged() {
				damaged++
			}
			l.Close()
		}
	}
	if payload := 8 * 23; damaged < payload { // a length that was made longer looks like a torn write
		t.Errorf("%d flips were seen as damage, want those in %d bits of payload at least", damaged, payload)
	}
}

// TestAppendCrashes stops at each step of an append. The log goes on, and a new one holds what the old one does.
func TestAppendCrashes(t *testing.T) {
	for _, at := range []Op{OpWrite, OpSync} {
		d := open(t, t.TempDir())
		crash := false
		var steps []Op
		l := openLog(t, d.WithStep(func(op Op, name string) error {
			steps = append(steps, op)
			if crash && op == at {
				return errCrash
			}
			return nil
		}), "log")
		l.append("one")
		if !slices.Equal(steps, []Op{OpWrite, OpSync}) {
			t.Errorf("steps %v", steps)
		}
		crash = true
		if err := l.Append([]byte("two"), []byte("three")); !errors.Is(err, errCrash) || !strings.Contains(err.Error(), d.Path("log")) {
			t.Errorf("append that crashes: %v", err)
		}
		openLog(t, d, "log").want(0, false, "one")
		crash = false
		l.append("four")
		openLog(t, d, "log").want(0, false, "one", "four")
	}
}

// TestAppendFails: a file that cannot be written keeps what it held, and the log goes on when it can be again.
func TestAppendFails(t *testing.T) {
	d := open(t, t.TempDir())
	l := openLog(t, d, "log")
	l.append("one")
	good := l.f
	readOnly, err := os.Open(d.Path("log"))
	if err != nil {
		t.Fatal(err)
	}
	l.f = readOnly
	if err := l.Append([]byte("two")); err == nil {
		t.Fatal("no error")
	}
	readOnly.Close()
	l.f = good
	l.append("three")
	openLog(t, d, "log").want(0, false, "one", "three")
}

// TestReplace stops at each step of a replacement.
func TestReplace(t *testing.T) {
	for _, at := range []Op{OpWrite, OpSync, OpRename, "none"} {
		d := open(t, t.TempDir())
		armed := false
		l := openLog(t, d.WithStep(func(op Op, name string) error {
			if armed && op == at {
				return errCrash
			}
			return nil
		}), "log")
		l.append("one", "two", "three")
		armed = true
		err := l.Replace([]byte("two"))
		if errors.Is(err, errCrash) != (at != "none") {
			t.Errorf("crash at %s: %v", at, err)
		}
		held := []string{"two"}
		if at == OpWrite || at == OpSync {
			held = []string{"one", "two", "three"}
		}
		openLog(t, d, "log").want(0, false, held...)
		if err == nil {
			l.append("four")
			openLog(t, d, "log").want(0, false, "two", "four")
			if l.Size() != 2*recordHeader+7 {
				t.Errorf("size %d", l.Size())
			}
		}
	}
}

// FuzzOpenLog: any bytes can be opened, appended to and opened again.
func FuzzOpenLog(f *testing.F) {
	d := open(f, f.TempDir())
	l := openLog(f, d, "log")
	l.append("one", "two")
	f.Add(raw(f, d, "log"))
	f.Add(make([]byte, 20))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := open(t, t.TempDir())
		put(t, d, "log", data)
		l := openLog(t, d, "log")
		if l.torn < 0 || l.torn > int64(len(data)) || l.Size()+l.torn != int64(len(data)) {
			t.Fatalf("size %d, torn %d of %d", l.Size(), l.torn, len(data))
		}
		l.append("next")
		openLog(t, d, "log").want(0, false, append(slices.Clone(l.held), "next")...)
	})
}
