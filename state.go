package meshnet

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/safefile"
	"github.com/meshnet/meshnet/platform"
)

const lockName = "lock"

// state is a node's memory: who it is and its network. Owned by Start, then by Node.
type state struct {
	dir   *safefile.Dir // nil: in memory
	lock  *os.File
	id    *identity.Identity
	store *control.Store
}

// openState takes the state folder for this process and reads it.
func openState(path string) (*state, error) {
	s := &state{}
	if path != "" {
		dir, err := safefile.Open(path)
		if err != nil {
			return nil, err
		}
		s.dir = dir
		if err := s.take(); err != nil {
			return nil, err
		}
		if err := dir.Sweep(); err != nil {
			s.close()
			return nil, err
		}
	}
	err := s.loadIdentity()
	if err == nil {
		s.store, err = control.OpenStore(s.dir, time.Now())
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// take locks the folder. The file tells others who has it.
func (s *state) take() error {
	f, err := os.OpenFile(s.dir.Path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the state folder: %w", err)
	}
	ok, err := tryLock(f)
	if err != nil || !ok {
		f.Close()
		if err != nil {
			return fmt.Errorf("lock the state folder: %w", err)
		}
		pid, readErr := os.ReadFile(s.dir.Path(lockName))
		if readErr != nil || len(pid) == 0 {
			return ErrInUse
		}
		return fmt.Errorf("%w (pid %s)", ErrInUse, strings.TrimSpace(string(pid)))
	}
	s.lock = f
	if err = f.Truncate(0); err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		s.close()
		return fmt.Errorf("lock the state folder: %w", err)
	}
	return nil
}

func (s *state) loadIdentity() error {
	if s.dir == nil {
		s.id = identity.New()
		return nil
	}
	id, err := identity.Load(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		id = identity.New()
		err = id.Save(s.dir)
	}
	s.id = id
	return err
}

// handshakesFile keeps until when times are reserved for WireGuard initiations: others refuse one that is not later than
// the last they saw, so a clock that was set back must not shut this node out.
const handshakesFile = "handshakes"

// handshakesUntil is the time that was reserved last; the zero time without one.
func (s *state) handshakesUntil() time.Time {
	if s.dir == nil {
		return time.Time{}
	}
	text, err := s.dir.Read(handshakesFile)
	if err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(text)))
	if err != nil {
		return time.Time{}
	}
	return t
}

// reserveHandshakes keeps a time on disk.
func (s *state) reserveHandshakes(until time.Time) error {
	if s.dir == nil {
		return nil
	}
	return s.dir.Write(handshakesFile, []byte(until.UTC().Format(time.RFC3339Nano)+"\n"))
}

// read is a file of the folder; nil: there is none.
func (s *state) read(name string) []byte {
	if s.dir == nil {
		return nil
	}
	data, err := s.dir.Read(name)
	if err != nil {
		return nil
	}
	return data
}

// write replaces a file of the folder.
func (s *state) write(name string, data []byte) error {
	if s.dir == nil {
		return nil
	}
	return s.dir.Write(name, data)
}

func (s *state) close() {
	if s.store != nil {
		s.store.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

// parseToken reads a token into the error that users meet.
func parseToken(text string) (ledger.Token, error) {
	token, err := ledger.ParseToken(text)
	if err != nil {
		return token, &Hinted{fmt.Errorf("%w: %w", ErrToken, err), "copy the whole token, or ask for a new one: meshnet invite"}
	}
	return token, nil
}

// mayReplace reports whether the network of the store is one that nobody would miss: founded here, with no other
// member and no open invite.
func (s *state) mayReplace() bool {
	mesh, err := control.New(control.Config{Identity: s.id, Store: s.store})
	if err != nil {
		return false
	}
	for _, inv := range mesh.Invites() {
		if inv.Open {
			return false
		}
	}
	members := mesh.Members()
	return len(members) == 1 && members[0].ID == s.id.ID()
}

// found makes the store that of a new network.
func (s *state) found(cfg Config, host platform.Host) error {
	params := ledger.FoundParams{Name: cfg.Network, Prefix4: cfg.Prefix4}
	if params.Name == "" {
		params.Name = randomName()
	}
	if !params.Prefix4.IsValid() {
		id := s.id.ID()
		params.Prefix4 = platform.FreePrefix4(host, id[:])
	}
	if params.Prefix4 == (netip.Prefix{}) {
		return &Hinted{errors.New("every private IPv4 prefix overlaps a route of this host"), "choose one with --cidr"}
	}
	return s.store.Found(s.id, params, time.Now())
}
