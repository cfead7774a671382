package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Measures of a flame graph, in pixels.
const (
	flameWidth  = 1400
	flameMargin = 10
	flameTop    = 52
	flameRow    = 17
	flameChar   = 6.7 // width of a character
	flameLeast  = 0.2 // narrower functions are left out
)

// flameStyle follows the reader's choice of light or dark.
const flameStyle = `<style>
text{font:11px ui-monospace,monospace;fill:#1f2328}.title{font:600 15px sans-serif}.small{font:11px sans-serif;fill:#59636e}
rect{stroke:#fff;stroke-width:.6}.root{fill:#d0d7de}.go{fill:#9ed2b1}.kernel{fill:#f0bd83}
g:hover>rect{stroke:#1f2328;stroke-width:1.2}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}rect{stroke:#0d1117}.root{fill:#3d444d}.go{fill:#2a6a4a}
.kernel{fill:#8a5a1f}g:hover>rect{stroke:#f0f6fc}}
</style>`

// drawFlame writes a flame graph: callers below, what they called above them, as wide as the share of samples. The full
// name and the share of a function are shown where the pointer is.
func drawFlame(w io.Writer, title string, root *flame) error {
	height := flameTop + (root.depth()+1)*flameRow + flameMargin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n%[3]s\n",
		flameWidth, height, flameStyle)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="20">%s</text>`+"\n", flameMargin, escaped(title))
	fmt.Fprintf(&b, `<rect class="go" x="%d" y="30" width="12" height="12"/><text class="small" x="%d" y="40">Go</text>`+"\n",
		flameMargin, flameMargin+17)
	fmt.Fprintf(&b, `<rect class="kernel" x="60" y="30" width="12" height="12"/><text class="small" x="77" y="40">kernel</text>`+"\n")
	fmt.Fprintf(&b, `<text class="small" x="130" y="40">%s samples</text>`+"\n", grouped(float64(root.samples), 0))
	if root.samples > 0 {
		g := flameGraph{out: &b, total: root.samples, scale: (flameWidth - 2*flameMargin) / float64(root.samples)}
		g.draw(root, flameMargin, height-flameMargin-flameRow)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// flameGraph draws functions. Owned by one goroutine.
type flameGraph struct {
	out   *strings.Builder
	total int     // samples
	scale float64 // pixels a sample
	above int     // functions drawn around the next one
}

// draw draws a function at a place, and what it called above it.
func (g *flameGraph) draw(f *flame, x float64, y int) {
	width := float64(f.samples) * g.scale
	if width < flameLeast {
		return
	}
	class := "go"
	switch {
	case f.kernel:
		class = "kernel"
	case g.above < 2: // everything, and a process
		class = "root"
	}
	fmt.Fprintf(g.out, `<g><title>%s: %s samples, %.1f %%</title><rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d" rx="1"/>`,
		escaped(f.name), grouped(float64(f.samples), 0), 100*float64(f.samples)/float64(g.total), class, x, y, width, flameRow-1)
	if label := fitted(shortName(f.name), int((width-6)/flameChar)); label != "" {
		fmt.Fprintf(g.out, `<text x="%.1f" y="%d">%s</text>`, x+3, y+flameRow-5, escaped(label))
	}
	g.out.WriteString("</g>\n")
	g.above++
	for _, called := range f.children() {
		g.draw(called, x, y-flameRow)
		x += float64(called.samples) * g.scale
	}
	g.above--
}

// shortName is a Go function's name without its package's path and the types that it was made for.
func shortName(name string) string {
	if open := strings.IndexByte(name, '['); open > 0 {
		shut := strings.LastIndexByte(name, ']')
		if shut > open {
			name = name[:open] + "[…]" + name[shut+1:]
		}
	}
	if slash := strings.LastIndexByte(name, '/'); slash >= 0 {
		name = name[slash+1:]
	}
	return name
}

// fitted is as much of text as fits into a number of characters; nothing where that would say nothing.
func fitted(text string, room int) string {
	const least = 3
	if utf8.RuneCountInString(text) <= room {
		return text
	}
	if room < least {
		return ""
	}
	return string([]rune(text)[:room-1]) + "…"
}
