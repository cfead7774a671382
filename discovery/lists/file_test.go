package lists

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseFile(t *testing.T) {
	list := parseFile("\ufeff# members\r\n\r\nhost:7 # the first\r\n" +
		"  [2001:db8::1]:8\n192.0.2.1\nHOST.:7\nbad:0\n\nno host:1\n#end")
	var got []string
	for _, e := range list.entries {
		got = append(got, e.String())
	}
	if want := []string{"host:7", "[2001:db8::1]:8", "192.0.2.1:41820"}; !slices.Equal(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}
	if want := []badLine{{7, errPort}, {9, errHost}}; !slices.Equal(list.bad, want) {
		t.Errorf("bad lines %v, want %v", list.bad, want)
	}
	if want := "2 bad lines, the first is line 7: " + errPort.Error(); list.complaint().Error() != want {
		t.Errorf("complaint %q, want %q", list.complaint(), want)
	}
}

func TestParseFileBounds(t *testing.T) {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "h%d.example\nh%d.example\nbad line %d\n", i, i/2, i)
	}
	list := parseFile(b.String())
	if len(list.entries) != maxEntries || list.ignored == 0 || len(list.bad) != maxBad || list.moreBad != 10_000-maxBad {
		t.Errorf("%d entries, %d ignored, %d+%d bad", len(list.entries), list.ignored, len(list.bad), list.moreBad)
	}
	if !list.beyond() || !strings.Contains(list.complaint().Error(), "10000 bad lines") {
		t.Errorf("complaint %v", list.complaint())
	}
	if err := parseFile("# none\n").complaint(); err == nil || err.Error() != "no entries" {
		t.Errorf("an empty file: %v", err)
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "members")
	if _, _, err := readFile(name, fileMark{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a:1\n")
	text, mark, err := readFile(name, fileMark{})
	if text != "a:1\n" || err != nil || mark == (fileMark{}) {
		t.Fatalf("read %q, %v, %v", text, mark, err)
	}
	if text, again, err := readFile(name, mark); text != "" || again != mark || err != nil {
		t.Errorf("unchanged: read %q, %v, %v", text, again, err)
	}
	if err := os.Chtimes(name, time.Time{}, mark.modified.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if text, again, err := readFile(name, mark); text != "a:1\n" || again == mark || err != nil {
		t.Errorf("touched: read %q, %v, %v", text, again, err)
	}
	write(strings.Repeat("#", maxFile))
	if text, _, err := readFile(name, mark); len(text) != maxFile || err != nil {
		t.Errorf("1 MiB: read %d bytes, %v", len(text), err)
	}
	write(strings.Repeat("#", maxFile+1))
	if _, again, err := readFile(name, mark); !errors.Is(err, errFileSize) || again != mark {
		t.Errorf("more than 1 MiB: %v", err)
	}
	if _, _, err := readFile(dir, fileMark{}); !errors.Is(err, errFileKind) {
		t.Errorf("a folder: %v", err)
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("host:7 # comment\n\n[2001:db8::1]\r\nbad:\n")
	f.Add("\ufeff#\na:1\na:1")
	f.Fuzz(func(t *testing.T, text string) {
		list := parseFile(text)
		if len(list.entries) > maxEntries || len(list.bad) > maxBad {
			t.Errorf("%d entries, %d bad", len(list.entries), len(list.bad))
		}
		var b strings.Builder
		for _, e := range list.entries {
			fmt.Fprintln(&b, e)
		}
		if again := parseFile(b.String()); !slices.Equal(again.entries, list.entries) || len(again.bad) > 0 {
			t.Errorf("%q is read as\n%q, and that as %v", text, b.String(), again.entries)
		}
	})
}

func BenchmarkParseFile(b *testing.B) {
	text := strings.Repeat("a", 40) + ".example.org:41820\n"
	text = strings.Repeat(text, maxFile/len(text))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		parseFile(text)
	}
}
