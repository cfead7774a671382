package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
)

// acknowledged is what a client was told is done. Guarded by mu.
type acknowledged struct {
	mu      sync.Mutex
	made    map[string]bool // invites by id
	revoked map[string]bool
}

// write makes and revokes invites until the context ends or the node is gone.
func (k *acknowledged) write(ctx context.Context, n *node) {
	for ctx.Err() == nil {
		p, err := n.host.Start(netlab.Proc{Path: n.w.bin, Args: []string{"invite", "--state", n.state}})
		if err != nil || p.Wait() != nil {
			continue
		}
		_, line, _ := strings.Cut(p.Output(), "\ninvite ")
		id, _, ok := strings.Cut(line, " ")
		if !ok {
			_, line, _ = strings.Cut(p.Output(), "invite ")
			id, _, _ = strings.Cut(line, " ")
		}
		k.note(k.made, id)
		if rand.IntN(2) == 0 {
			continue
		}
		p, err = n.host.Start(netlab.Proc{Path: n.w.bin, Args: []string{"invite", "revoke", id, "--state", n.state}})
		if err == nil && p.Wait() == nil {
			k.note(k.revoked, id)
		}
	}
}

func (k *acknowledged) note(set map[string]bool, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set[id] = true
}

// check compares what was acknowledged with what a node knows.
func (k *acknowledged) check(t *testing.T, all []meshnet.InviteStatus) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.made {
		i := slices.IndexFunc(all, func(s meshnet.InviteStatus) bool { return s.ID == id })
		switch {
		case i < 0:
			t.Errorf("invite %s is lost", id)
		case k.revoked[id] && all[i].State != "revoked":
			t.Errorf("invite %s is %s, was revoked", id, all[i].State)
		}
	}
	t.Logf("%d invites were made and %d revoked", len(k.made), len(k.revoked))
}

const (
	kills   = 50
	writers = 2
)

// TestKilledWhileWriting kills a node again and again while it writes. It always comes back as it was.
func TestKilledWhileWriting(t *testing.T) {
	w := newWorld(t)
	a, b := w.pair(nil, nil)
	b.ping(a.ip4, 5*time.Second)
	want := a.status()
	before := a.memory()
	kept := &acknowledged{made: map[string]bool{}, revoked: map[string]bool{}}
	start := time.Now()
	for range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() { kept.write(ctx, a) })
		}
		alive := time.NewTimer(time.Duration(20+rand.IntN(280)) * time.Millisecond)
		<-alive.C // how long it lives is what the test varies
		a.proc.Kill()
		cancel()
		wg.Wait()
		a.up()
		if strings.Contains(a.proc.Output(), "damaged") {
			t.Fatalf("a file is damaged:\n%s", a.proc.Output())
		}
		a.wantMemory(before)
		got := a.status()
		if got.Self.ID != want.Self.ID || *got.Network.ID != *want.Network.ID || got.Network.Members != 2 ||
			len(got.Peers) != 1 || got.Peers[0].ID != want.Peers[0].ID || !slices.Equal(got.Self.IPs, want.Self.IPs) {
			t.Fatalf("it came back as another: %+v", got)
		}
		if got.Peers[0].Name == nil || *got.Peers[0].Name != "bob" {
			t.Fatalf("it forgot the name of its peer")
		}
	}
	t.Logf("%d kills in %v", kills, time.Since(start).Round(time.Millisecond))
	kept.check(t, a.invites())
	if len(kept.made) < kills/5 {
		t.Errorf("only %d invites were made: it did not write all the time", len(kept.made))
	}
	for _, pattern := range []string{".*.tmp", "*.corrupt-*"} {
		if left, _ := filepath.Glob(filepath.Join(a.state, pattern)); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	a.ping(b.ip4, 10*time.Second)
}

// smallDisk makes the node's state folder a file system of its own.
func smallDisk(t *testing.T, n *node, size int) {
	t.Helper()
	if err := os.MkdirAll(n.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", n.state, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(n.state, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill writes a file until nothing more goes in.
func (n *node) fill() (path string) {
	n.w.t.Helper()
	path = filepath.Join(n.state, "ballast")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		n.w.t.Fatal(err)
	}
	defer f.Close()
	for _, chunk := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, chunk))
		}
		if !errors.Is(err, unix.ENOSPC) {
			n.w.t.Fatalf("fill the disk: %v", err)
		}
	}
	return path
}

// startUntilFull starts the node on a full disk until that fails. Each start writes a little, and the last block of a
// file may have room for some of them.
func (n *node) startUntilFull() {
	n.w.t.Helper()
	for range 30 {
		n.begin()
		ctx, cancel := context.WithTimeout(n.w.t.Context(), 20*time.Second)
		err := n.proc.WaitOutput(ctx, "\nready: ")
		cancel()
		if err != nil {
			n.failUp(1, "no space left")
			return
		}
		if err := n.proc.Stop(); err != nil {
			n.w.t.Fatal(err)
		}
	}
	n.w.t.Fatal("it starts on a full disk for ever")
}

// TestFullDisk fills the disk below a node that runs, then below one that starts.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	nodes := w.lan("alice", "bob", "carol")
	a, b, c := nodes[0], nodes[1], nodes[2]
	smallDisk(t, a, 256<<10)
	smallDisk(t, c, 64<<10)
	a.up()
	b.up("--join", "@"+a.invite())
	b.ping(a.ip4, 5*time.Second)
	before, id := a.memory(), a.status().Self.ID

	ballast := a.fill()
	until(t, 20*time.Second, "writing fails", func() bool {
		e := a.finish(w.bin, "invite", "--state", a.state)
		if e.code != 0 {
			e.stdout = "" // the token of a disk that is full
			e.check(t, 1, "no space left")
		}
		return e.code != 0
	})
	until(t, 10*time.Second, "status tells of it", func() bool { return hasHealth(a.status(), "state_unwritable") })
	b.ping(a.ip4, 5*time.Second)
	a.ping(b.ip6, 5*time.Second)
	a.wantMemory(before)
	known := a.invites()
	if err := a.proc.Stop(); err != nil {
		t.Logf("stopped with a full disk: %v", err)
	}

	a.startUntilFull()
	a.wantMemory(before)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	a.up()
	a.wantMemory(before)
	if got := a.status(); got.Self.ID != id || len(got.Peers) != 1 || hasHealth(got, "state_unwritable") {
		t.Errorf("it came back as another: %+v", got)
	}
	if strings.Contains(a.proc.Output(), "damaged") || strings.Contains(a.proc.Output(), "middle of a record") {
		t.Errorf("files are damaged:\n%s", a.proc.Output())
	}
	if got := a.invites(); len(got) < len(known)-1 {
		t.Errorf("%d invites, were %d", len(got), len(known))
	}
	a.ping(b.ip4, 10*time.Second)

	// A node that never was: nothing half is left of it.
	ballast = c.fill()
	c.failUp(1, "no space left")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.up("--join", "@"+a.invite())
	c.ping(b.ip4, 10*time.Second)
}

// TestDiskFreedWhileRunning: what was learnt while nothing could be written is written once there is space again.
func TestDiskFreedWhileRunning(t *testing.T) {
	w := newWorld(t)
	a := w.lan("alice")[0]
	smallDisk(t, a, 256<<10)
	a.up()
	ballast := a.fill()
	until(t, 20*time.Second, "writing fails", func() bool { return a.finish(w.bin, "invite", "--state", a.state).code != 0 })
	until(t, 10*time.Second, "status tells of it", func() bool { return hasHealth(a.status(), "state_unwritable") })
	known := a.invites()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the state is written", func() bool { return !hasHealth(a.status(), "state_unwritable") })
	a.proc.Kill()
	a.up()
	if got := a.invites(); len(got) != len(known) {
		t.Errorf("%d invites after a restart, were %d", len(got), len(known))
	}
}

// TestDamagedFiles flips bytes in and cuts a stopped node's files: it tells, and never invents another identity.
func TestDamagedFiles(t *testing.T) {
	w := newWorld(t)
	a, b := w.pair(nil, nil)
	b.ping(a.ip4, 5*time.Second)
	want := b.status()
	if err := b.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	good := map[string][]byte{}
	for _, name := range []string{"identity.pem", "network.cbor", "ledger.log", "peers.log", "book.cbor"} {
		data, err := os.ReadFile(filepath.Join(b.state, name))
		if err != nil {
			t.Fatal(err)
		}
		good[name] = data
	}
	write := func(files map[string][]byte) {
		t.Helper()
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(b.state, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := func(name string) []byte {
		if strings.HasSuffix(name, ".log") {
			return good[name][:len(good[name])-3] // the tail that a crash leaves
		}
		return good[name][:len(good[name])/2]
	}
	for _, name := range slices.Sorted(maps.Keys(good)) {
		t.Run(name, func(t *testing.T) {
			write(good)
			write(map[string][]byte{name: cut(name)})
			if name == "identity.pem" { // never replaced by a new one
				b.failUp(1, name)
				if got, _ := os.ReadFile(filepath.Join(b.state, name)); string(got) != string(cut(name)) {
					t.Error("the damaged key was overwritten")
				}
				return
			}
			if name == "network.cbor" { // kept aside, and never founded over; a token leads back in
				b.failUp(1, "network")
				left, _ := filepath.Glob(filepath.Join(b.state, name+".corrupt-*"))
				if len(left) != 1 {
					t.Fatalf("kept aside: %v", left)
				}
				if got, _ := os.ReadFile(left[0]); string(got) != string(cut(name)) {
					t.Error("other bytes were kept aside")
				}
				b.failUp(1, "network")
				b.up("--join", "@"+a.invite())
				defer b.proc.Stop()
				if got := b.status(); got.Self.ID != want.Self.ID || *got.Network.ID != *want.Network.ID {
					t.Errorf("it came back as another: %+v", got)
				}
				b.ping(a.ip4, 10*time.Second)
				return
			}
			b.up()
			defer b.proc.Stop()
			if got := b.status(); got.Self.ID != want.Self.ID || *got.Network.ID != *want.Network.ID {
				t.Errorf("it came back as another: %+v", got)
			}
			if !strings.Contains(b.proc.Output(), name) {
				t.Errorf("it does not name %s:\n%s", name, b.proc.Output())
			}
			b.ping(a.ip4, 10*time.Second)
		})
	}
	write(good)
	b.up()
	b.ping(a.ip4, 10*time.Second)
}
