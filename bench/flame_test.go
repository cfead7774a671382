package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// perfText is what perf script prints of two processes.
const perfText = `  101 
	ffffffff81a01234 __schedule ([kernel.kallsyms])
	          4a0000 runtime.futex.abi0 (/opt/meshnet)
	          4b0000 github.com/meshnet/meshnet/tunnel.(*tap).run (/opt/meshnet)

  101 
	          4a0001 runtime.futex.abi0 (/opt/meshnet)
	          4b0000 github.com/meshnet/meshnet/tunnel.(*tap).run (/opt/meshnet)

  102 
	          4c0000 slices.sort[go.shape.struct { ID x/y.ID; Name string }] (/opt/my (own) meshnet)

  102 
	ffffffffc0001000 veth_xmit ([veth])
	               0 [unknown] ([unknown])
`

func TestFoldPerf(t *testing.T) {
	root, err := foldPerf(strings.NewReader(perfText), map[int]string{101: "sender"})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	var walk func(f *flame, path string)
	walk = func(f *flame, path string) {
		name := f.name
		if f.kernel {
			name += "_[k]"
		}
		path += name
		lines = append(lines, path+" "+grouped(float64(f.samples), 0))
		for _, c := range f.children() {
			walk(c, path+";")
		}
	}
	walk(root, "")
	const run = "all;sender;github.com/meshnet/meshnet/tunnel.(*tap).run"
	want := []string{
		"all 4",
		"all;process 102 2",
		"all;process 102;[unknown] 1",
		"all;process 102;[unknown];veth_xmit_[k] 1",
		"all;process 102;slices.sort[go.shape.struct { ID x/y.ID; Name string }] 1",
		"all;sender 2",
		run + " 2",
		run + ";runtime.futex.abi0 2",
		run + ";runtime.futex.abi0;__schedule_[k] 1",
	}
	if got, want := strings.Join(lines, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if root.depth() != 4 {
		t.Errorf("depth %d, want 4", root.depth())
	}
}

func TestFoldPerfRefusals(t *testing.T) {
	for name, text := range map[string]string{
		"a stack of nobody": "\t4a0000 main (/opt/x)\n", "no address": "1\n\tmain\n", "no number": "1\n\txyz main (/opt/x)\n",
		"no process": "meshnet\n\t4a0000 main (/opt/x)\n",
	} {
		if _, err := foldPerf(strings.NewReader(text), nil); !errors.Is(err, errPerfFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if root, err := foldPerf(strings.NewReader("101\n\n"), nil); err != nil || root.samples != 0 {
		t.Errorf("a sample without a stack: %d, %v", root.samples, err)
	}
}

func TestDrawFlame(t *testing.T) {
	root := newFlame(frame{name: "all"})
	for range 900 {
		root.add([]frame{{name: "sender"}, {name: "github.com/x/y.(*T).method[go.shape.int]"}})
	}
	root.add([]frame{{name: "sender"}, {name: "tcp_sendmsg", kernel: true}})
	for range 100 {
		root.add([]frame{{name: "receiver"}, {name: "tun_<chr>", kernel: true}})
	}
	var b strings.Builder
	if err := drawFlame(&b, "a & b", root); err != nil {
		t.Fatal(err)
	}
	svg := b.String()
	for _, want := range []string{
		"<title>github.com/x/y.(*T).method[go.shape.int]: 900 samples, 89.9 %</title><rect class=\"go\"",
		">y.(*T).method[…]</text>", "<title>tun_&lt;chr&gt;: 100 samples, 10.0 %</title><rect class=\"kernel\"",
		"<title>receiver: 100 samples, 10.0 %</title><rect class=\"root\"", "a &amp; b", "prefers-color-scheme:dark", "1 001 samples",
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in\n%s", want, svg)
		}
	}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("not XML: %v", err)
		}
	}
	b.Reset()
	if err := drawFlame(&b, "nothing", newFlame(frame{name: "all"})); err != nil || strings.Contains(b.String(), "NaN") {
		t.Errorf("a graph of nothing: %v\n%s", err, b.String())
	}
}

func TestShortName(t *testing.T) {
	for name, want := range map[string]string{
		"runtime.mallocgc": "runtime.mallocgc", "github.com/meshnet/meshnet/tunnel/wg.(*Table).Acquire": "wg.(*Table).Acquire",
		"slices.sort[go.shape.struct { ID x/y.ID }]": "slices.sort[…]", "a/b.f[x/y.Z].func1": "b.f[…].func1",
		"[unknown]": "[unknown]", "": "",
	} {
		if got := shortName(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestFitted(t *testing.T) {
	for _, tt := range []struct {
		text string
		room int
		want string
	}{
		{"main", 4, "main"}, {"main.run", 5, "main…"}, {"[…]xyz", 4, "[…]…"}, {"main", 2, ""}, {"ab", 2, "ab"}, {"main", -1, ""},
	} {
		if got := fitted(tt.text, tt.room); got != tt.want {
			t.Errorf("%q in %d is %q, want %q", tt.text, tt.room, got, tt.want)
		}
	}
}
