package control

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/safefile"
)

var errCrash = errors.New("crash")

// crasher ends a history at one of its file operations and keeps pictures of the folder as a crash there would leave
// it: all of what was written, or of what was not synced yet a half, or nothing.
type crasher struct {
	t        *testing.T
	dir      string
	at       int // the operation that ends it
	ops      int
	synced   map[string]int64
	pictures []string
}

func (c *crasher) step(op safefile.Op, name string) error {
	c.ops++
	if op != safefile.OpWrite { // what is renamed was synced
		c.synced[name] = c.size(c.dir, name)
	}
	if c.ops < c.at {
		return nil
	}
	if c.ops > c.at {
		return errCrash // nothing happens after the end
	}
	c.picture("", 0)
	if size := c.size(c.dir, name); op == safefile.OpWrite && size > 0 && strings.HasSuffix(name, ".log") {
		kept := c.synced[name]
		if kept > size { // begun anew
			kept = 0
		}
		c.picture(name, kept)
		c.picture(name, (kept+size)/2)
	}
	return errCrash
}

func (c *crasher) size(dir, name string) int64 {
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	return info.Size()
}

// picture copies the folder, one file cut to a size.
func (c *crasher) picture(cut string, size int64) {
	c.t.Helper()
	to := filepath.Join(c.t.TempDir(), "picture")
	if err := os.CopyFS(to, os.DirFS(c.dir)); err != nil {
		c.t.Fatal(err)
	}
	if cut != "" {
		if err := os.Truncate(filepath.Join(to, cut), size); err != nil {
			c.t.Fatal(err)
		}
	}
	c.pictures = append(c.pictures, to)
}

// history is what a node does with its folder, and what was done for good when it ended.
type history struct {
	t         *testing.T
	self      *identity.Identity
	guest     *identity.Identity
	other     *networkFile // a network to join in place of the own
	otherHas  []fact
	network   identity.NetworkID
	key       identity.Secret
	invites   map[string]bool // by id, whether revoked
	admitted  bool
	carded    bool
	booked    bool
	replacing bool
	replaced  bool
}

func newHistory(t *testing.T) *history {
	t.Helper()
	h := &history{
		t: t, self: identity.FromSeed(identity.Secret{9}), guest: identity.FromSeed(identity.Secret{10}),
		invites: make(map[string]bool),
	}
	other, err := OpenStore(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := found(other, identity.FromSeed(identity.Secret{11})); err != nil {
		t.Fatal(err)
	}
	h.other = other.network
	mesh, err := New(Config{Identity: identity.FromSeed(identity.Secret{11}), Store: other})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.admit(mesh, h.self); err != nil {
		t.Fatal(err)
	}
	for s := range mesh.ledger.Statements(0) {
		h.otherHas = append(h.otherHas, statementFact(s))
	}
	for r := range mesh.ledger.Records(0) {
		h.otherHas = append(h.otherHas, recordFact(r))
	}
	return h
}

func found(s *Store, self *identity.Identity) error {
	return s.Found(self, ledger.FoundParams{Name: "town", Prefix4: netip.MustParsePrefix("100.88.0.0/16")}, time.Now())
}

func (h *history) mesh(s *Store) (*Mesh, error) {
	return New(Config{Identity: h.self, Store: s, Name: "self", Boot: [8]byte{1}})
}

// admit lets a node in, as its invite's author.
func (h *history) admit(m *Mesh, node *identity.Identity) error {
	token, err := m.NewInvite(nil, time.Hour, 1)
	if err != nil {
		return err
	}
	return m.update(func(u *update) error {
		u.urgent = true
		a := ledger.NewAdmit(node, m.network.ID, token.InviteID(), token.Seed)
		if _, err := m.ledger.AddAdmit(a.Raw); err != nil {
			return err
		}
		_, err := m.ledger.Accept(m.self, a.ID, m.now())
		return err
	})
}

// card gives a node a card, as a session would.
func (h *history) card(m *Mesh, node *identity.Identity) error {
	c := &Card{Node: node.ID(), Seq: 7, Name: "guest", WG: node.WG(), Disco: node.Disco()}
	c.Roles = slices.Repeat([]string{strings.Repeat("r", maxText)}, 8) // large, so that few fill the log
	return m.update(func(u *update) error {
		u.urgent = true
		return m.mergeCard(u, c.sign(node, m.network.ID).signed)
	})
}

// run goes through the history until the folder fails.
func (h *history) run(dir *safefile.Dir) error {
	s, err := OpenStore(dir, time.Now())
	if err != nil {
		return err
	}
	defer func() { s.Close() }()
	if err := found(s, h.self); err != nil {
		return err
	}
	h.network, _ = s.Exists()
	h.key = s.network.Keys[0]
	m, err := h.mesh(s)
	if err != nil {
		return err
	}
	if err := h.live(m); err != nil {
		return err
	}
	// Enough old cards that the next start writes the log anew.
	old := slices.Repeat([]fact{cardFact(m.cards[h.guest.ID()])}, 120)
	if err := s.appendTo(s.peers, old); err != nil {
		return err
	}
	before := s.peers.Size()
	s.Close()
	if s, err = OpenStore(dir, time.Now()); err != nil {
		return err
	}
	if _, err = h.mesh(s); err != nil {
		return err
	}
	if s.peers.Size() > before/2 {
		h.t.Fatalf("the log of cards was not written anew: %d bytes, were %d", s.peers.Size(), before)
	}
	h.replacing = true
	network := *h.other
	if err := s.begin(&network, h.otherHas); err != nil {
		return err
	}
	h.replaced = true
	_, err = h.mesh(s)
	return err
}

// live is a member's daily work.
func (h *history) live(m *Mesh) error {
	for i := range 3 {
		token, err := m.NewInvite(nil, time.Hour, 0)
		if err != nil {
			return err
		}
		name := inviteName(token.InviteID())
		h.invites[name] = false
		if i == 1 {
			if err := m.RevokeInvite(name); err != nil {
				return err
			}
			h.invites[name] = true
		}
	}
	if err := h.admit(m, h.guest); err != nil {
		return err
	}
	h.admitted = true
	if err := h.card(m, h.guest); err != nil {
		return err
	}
	h.carded = true
	m.PathWorks(h.guest.ID(), netip.MustParseAddrPort("192.0.2.1:41820"))
	if err := m.saveBook(); err != nil {
		return err
	}
	h.booked = true
	return m.store.saveNetwork() // as when the clock has moved
}

// check opens what a crash left: it is from before or after, never half, and goes on.
func (h *history) check(where string, path string) {
	h.t.Helper()
	dir, err := safefile.Open(path)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := dir.Sweep(); err != nil {
		h.t.Fatal(err)
	}
	s, err := OpenStore(dir, time.Now())
	if err != nil {
		h.t.Fatalf("%s: %v", where, err)
	}
	defer s.Close()
	for _, note := range s.Notes() {
		if !strings.Contains(note, "ended in the middle of a record") {
			h.t.Errorf("%s: %s", where, note)
		}
	}
	id, exists := s.Exists()
	none := h.network == identity.NetworkID{}
	if !exists && !none {
		h.t.Fatalf("%s: the network is gone", where)
	}
	if !exists {
		if err := found(s, h.self); err != nil {
			h.t.Fatalf("%s: found after it: %v", where, err)
		}
	}
	m, err := h.mesh(s)
	if err != nil {
		h.t.Fatalf("%s: %v", where, err)
	}
	if self := m.Map().Self; self.ID != h.self.ID() || !self.IP4.IsValid() {
		h.t.Errorf("%s: the node is no member of its own network", where)
	}
	switch {
	case none:
	case id == h.network && !h.replaced:
		h.checkOwn(where, m)
	case h.replacing && bytes.Equal(s.network.Genesis, h.other.Genesis):
		if !slices.Equal(s.network.Keys, h.other.Keys) || s.network.RelayKey != h.other.RelayKey {
			h.t.Errorf("%s: other keys than those of the network", where)
		}
	default:
		h.t.Errorf("%s: network %s, want %s", where, id, h.network)
	}
	if _, err := m.NewInvite(nil, time.Hour, 1); err != nil && !errors.Is(err, ErrNotAdmin) {
		h.t.Errorf("%s: it does not go on: %v", where, err)
	}
}

func (h *history) checkOwn(where string, m *Mesh) {
	h.t.Helper()
	if m.store.network.Keys[0] != h.key {
		h.t.Errorf("%s: another key", where)
	}
	if h.replacing { // its facts go first: nobody would miss them
		return
	}
	state := map[string]bool{}
	for _, inv := range m.Invites() {
		state[inv.Name] = inv.Revoked
	}
	for name, revoked := range h.invites {
		if got, ok := state[name]; !ok || revoked && !got {
			h.t.Errorf("%s: invite %s: there %v, revoked %v, want %v", where, name, ok, got, revoked)
		}
	}
	guest := m.Map().Peer(h.guest.ID())
	switch {
	case h.admitted && guest == nil:
		h.t.Errorf("%s: a member is gone", where)
	case h.carded && guest.Name != "guest":
		h.t.Errorf("%s: its card is gone", where)
	case h.booked && len(guest.Endpoints) != 1:
		h.t.Errorf("%s: the address book is gone", where)
	}
}

// TestStoreCrashes ends a history at every file operation, and opens what is left.
func TestStoreCrashes(t *testing.T) {
	const most = 200
	for at := 1; ; at++ {
		if at > most {
			t.Fatal("the history has no end")
		}
		c := &crasher{t: t, dir: t.TempDir(), at: at, synced: make(map[string]int64)}
		dir, err := safefile.Open(c.dir)
		if err != nil {
			t.Fatal(err)
		}
		h := newHistory(t)
		err = h.run(dir.WithStep(c.step))
		if err != nil && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		if err == nil {
			if c.ops < 20 || !h.replaced {
				t.Fatalf("a history of %d operations", c.ops)
			}
			t.Logf("%d operations", c.ops)
			return
		}
		for i, p := range c.pictures {
			h.check(fmt.Sprintf("operation %d, picture %d", at, i), p)
		}
		h.check(fmt.Sprintf("operation %d, the folder itself", at), c.dir)
	}
}

// stored is a folder with a network, a guest and an invite.
func stored(t *testing.T) (*history, *safefile.Dir) {
	t.Helper()
	dir, err := safefile.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory(t)
	s, err := OpenStore(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := found(s, h.self); err != nil {
		t.Fatal(err)
	}
	h.network, _ = s.Exists()
	h.key = s.network.Keys[0]
	m, err := h.mesh(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.live(m); err != nil {
		t.Fatal(err)
	}
	return h, dir
}

// TestStoreDamaged: what is damaged is kept under another name and told; the rest is used.
func TestStoreDamaged(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name   string
		file   string
		damage func(data []byte) []byte
		note   string
		exists bool
		aside  bool // the damaged bytes are kept
	}{
		{"network cut", networkName, func(b []byte) []byte { return b[:len(b)-1] }, "is damaged and was kept as", false, true},
		{"network empty", networkName, func([]byte) []byte { return nil }, "is damaged and was kept as", false, true},
		{"network of another kind", networkName, func([]byte) []byte { return []byte("hello") }, "is damaged and was kept as", false, true},
		{"genesis flipped", networkName, func(b []byte) []byte { b[40] ^= 1; return b }, "is damaged and was kept as", false, true},
		{"book cut", bookName, func(b []byte) []byte { return b[:len(b)-1] }, "addresses are learnt anew", true, true},
		{"ledger torn", ledgerName, func(b []byte) []byte { return b[:len(b)-1] }, "ended in the middle of a record", true, false},
		{"ledger flipped", ledgerName, func(b []byte) []byte { b[20] ^= 1; return b }, "is damaged: a copy was kept as", true, true},
		{"ledger gone", ledgerName, func([]byte) []byte { return nil }, "", true, false},
		{"cards torn", peersName, func(b []byte) []byte { return b[:5] }, "ended in the middle of a record", true, false},
		{"cards flipped", peersName, func(b []byte) []byte { b[20] ^= 1; return b }, "is damaged: a copy was kept as", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, dir := stored(t)
			good, err := dir.Read(c.file)
			if err != nil {
				t.Fatal(err)
			}
			bad := c.damage(bytes.Clone(good))
			if err := os.WriteFile(dir.Path(c.file), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := OpenStore(dir, now)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, c.note) || (notes == "") != (c.note == "") {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			id, exists := s.Exists()
			if exists != c.exists || exists && id != h.network {
				t.Fatalf("network %s, %v", id, exists)
			}
			aside, _ := filepath.Glob(dir.Path(c.file + ".corrupt-*"))
			if (len(aside) == 1) != c.aside {
				t.Fatalf("kept aside: %v", aside)
			}
			if c.aside {
				if got, _ := os.ReadFile(aside[0]); !bytes.Equal(got, bad) {
					t.Error("other bytes were kept aside")
				}
			}
			if !exists {
				if err := found(s, h.self); err != nil {
					t.Fatal(err)
				}
			}
			m, err := h.mesh(s)
			if err != nil {
				t.Fatal(err)
			}
			if !m.Map().Self.IP4.IsValid() {
				t.Error("the node is no member of its own network")
			}
		})
	}
}

// TestStoreNewer leaves a folder alone that a newer version wrote.
func TestStoreNewer(t *testing.T) {
	_, dir := stored(t)
	s, err := OpenStore(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.network.Version = storeVersion + 1
	if err := errors.Join(s.saveNetwork(), s.Close()); err != nil {
		t.Fatal(err)
	}
	before, err := dir.Read(networkName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir, time.Now()); !errors.Is(err, ErrNewerState) {
		t.Errorf("opened: %v", err)
	}
	if after, err := dir.Read(networkName); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed, %v", err)
	}
}

// TestStoreInMemory: without a folder nothing is written and all works.
func TestStoreInMemory(t *testing.T) {
	h := newHistory(t)
	s, err := OpenStore(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, exists := s.Exists(); exists {
		t.Error("a network out of nothing")
	}
	if _, err := h.mesh(s); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("a member of no network: %v", err)
	}
	if err := found(s, h.self); err != nil {
		t.Fatal(err)
	}
	m, err := h.mesh(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.live(m); err != nil {
		t.Fatal(err)
	}
	h.network, _ = s.Exists()
	h.key = s.network.Keys[0]
	m.rebuild()
	h.checkOwn("in memory", m)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
