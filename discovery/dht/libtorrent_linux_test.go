package dht

import (
	"bufio"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

// torrents is a DHT of libtorrent's nodes only, in a process of their own.
type torrents struct {
	in    io.Writer
	lines chan string
	addrs []string
}

func newTorrents(t *testing.T) *torrents {
	t.Helper()
	const python = "/usr/bin/python3" // Debian's, which has Debian's modules
	err := exec.Command(python, "-c", "import libtorrent").Run()
	netlab.Need(t, err == nil, "needs python3-libtorrent")
	cmd := exec.CommandContext(t.Context(), python, "-B", "-W", "ignore", "testdata/libtorrent_nodes.py", "16")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &torrents{in: in, lines: make(chan string, 16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(d.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		<-done
		cmd.Wait()
		if complaints.Len() > 0 {
			t.Log(complaints.String())
		}
	})
	d.addrs = strings.Fields(strings.TrimPrefix(d.line(t), "ready "))
	return d
}

func (d *torrents) line(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-d.lines:
		if !ok {
			t.Fatal("libtorrent ended")
		}
		return line
	case <-time.After(60 * time.Second):
		t.Fatal("libtorrent says nothing")
	}
	return ""
}

func (d *torrents) do(t *testing.T, format string, args ...any) string {
	t.Helper()
	fmt.Fprintf(d.in, format+"\n", args...)
	return d.line(t)
}

// What libtorrent's nodes publish is read, and merged with what meshnet publishes, which they keep and give to others.
func TestTogetherWithLibtorrent(t *testing.T) {
	d := newTorrents(t)
	var w world
	s := slotAt(testTime)
	ids := together(4)
	l := locationOf(secretOf(1), s, indexOf(idOf(ids[0]), s))
	reader := w.node(t, Config{Bootstrap: d.addrs[1:2]})

	// libtorrent's private keys are those that RFC 8032 derives from a seed.
	private := sha512.Sum512(l.key.Seed())
	private[0] &= 248
	private[31] = private[31]&63 | 64
	theirs := l.sealValue([]Record{recordOf(ids[3], testTime.Add(-time.Minute), 10)})
	if line := d.do(t, "put %x %x %x %x", private, l.public, l.salt, theirs); !strings.HasPrefix(line, "put ") || line == "put 0" {
		t.Fatalf("libtorrent says %q", line)
	}
	if got := lookup(t, reader, testTime); len(got) != 1 {
		t.Errorf("after libtorrent wrote, found %v", got)
	}
	for i, id := range ids[:3] {
		start := time.Now()
		mustPublish(t, w.node(t, Config{Bootstrap: d.addrs[:1]}), id, names(i))
		t.Logf("published in %v", time.Since(start))
	}
	start := time.Now()
	if got := lookup(t, reader, testTime); len(got) != 4 || got[KeyOf(idOf(ids[2]))] != names(2) {
		t.Fatalf("found %v", got)
	}
	t.Logf("found in %v", time.Since(start))

	var seq int64
	var text string
	line := d.do(t, "get %x %x", l.public, l.salt)
	if _, err := fmt.Sscanf(line, "item %d %s", &seq, &text); err != nil {
		t.Fatalf("libtorrent found %.40q", line)
	}
	sealed, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	records, err := l.openValue(append(valuePrefix[:len(valuePrefix):len(valuePrefix)], sealed...))
	if err != nil || len(records) != 4 || seq < testTime.Unix() {
		t.Errorf("libtorrent has %v, sequence %d, %v", records, seq, err)
	}
}

// Writers at the same time on nodes that compare and swap.
func TestWritersAtOnceWithLibtorrent(t *testing.T) {
	d := newTorrents(t)
	var w world
	reader := w.node(t, Config{Bootstrap: d.addrs[1:2]})
	ids := together(4)
	writeAtOnce(t, &w, ids, Config{Bootstrap: d.addrs[2:3]})
	if got := lookup(t, reader, testTime); len(got) != len(ids) {
		t.Errorf("found %v", got)
	}
}
