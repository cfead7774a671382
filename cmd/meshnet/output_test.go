package main

import (
	"strings"
	"testing"
	"time"
)

func TestForPeople(t *testing.T) {
	now := time.Unix(1e6, 0)
	for want, got := range map[string]string{
		"0 B":           size(0),
		"1023 B":        size(1023),
		"1.0 KiB":       size(1024),
		"1.5 MiB":       size(3 << 19),
		"16.0 EiB":      size(1<<64 - 1),
		"12s ago":       ago(now, ptr(now.Add(-12*time.Second))),
		"59m ago":       ago(now, ptr(now.Add(-time.Hour+time.Second))),
		"47h ago":       ago(now, ptr(now.Add(-47*time.Hour))),
		"3d ago":        ago(now, ptr(now.Add(-75*time.Hour))),
		"0s ago":        ago(now, ptr(now.Add(time.Hour))),
		"a b":           list([]string{"a", "b"}),
		"[31mx":         printable("\x1b[31mx\x07"),
		"https://r:9":   short("https://r:9#sha256=ab"),
		"a#b":           short("a#b"),
		"https://r bob": places([]string{"https://r#sha256=ab", "bob"}),
		"-":             places(nil),
		"a; b":          oneLine("a\r\n\nb"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var tab table
	tab.row("é", "long", "z")
	tab.style(0, red)
	tab.row("abc", "d", "")
	var plain, coloured strings.Builder
	tab.write(&plain, false)
	tab.write(&coloured, true)
	if want := "é    long  z\nabc  d     \n"; plain.String() != want {
		t.Errorf("got %q, want %q", plain.String(), want)
	}
	if want := "\x1b[31mé\x1b[0m    long  z\nabc  d     \n"; coloured.String() != want {
		t.Errorf("got %q, want %q", coloured.String(), want)
	}
}

func TestStateFolder(t *testing.T) {
	for _, tt := range []struct {
		os   string
		root bool
		env  map[string]string
		want string
	}{
		{"linux", true, map[string]string{"HOME": "/root", "XDG_STATE_HOME": "/x"}, "/var/lib/meshnet"},
		{"linux", false, map[string]string{"HOME": "/h", "XDG_STATE_HOME": "/x"}, "/x/meshnet"},
		{"linux", false, map[string]string{"HOME": "/h", "XDG_STATE_HOME": "relative"}, "/h/.local/state/meshnet"},
		{"linux", false, map[string]string{"HOME": "/h"}, "/h/.local/state/meshnet"},
		{"linux", false, nil, ""},
		{"darwin", true, nil, "/Library/Application Support/meshnet"},
		{"darwin", false, map[string]string{"HOME": "/h"}, "/h/Library/Application Support/meshnet"},
		{"windows", true, map[string]string{"ProgramData": "/p"}, "/p/meshnet"},
		{"windows", false, map[string]string{"LocalAppData": "/l"}, "/l/meshnet"},
	} {
		got, err := stateFolder(host{os: tt.os, root: tt.root, getenv: func(k string) string { return tt.env[k] }})
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s root %v %v: %q, %v", tt.os, tt.root, tt.env, got, err)
		}
	}
}
