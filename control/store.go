package control

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/internal/safefile"
)

// The files of a state folder.
const (
	networkName = "network.cbor" // which network, its keys: replaced whole
	ledgerName  = "ledger.log"   // statements, admits, acceptances: grows
	peersName   = "peers.log"    // cards and reaches: grows, rewritten at start
	bookName    = "book.cbor"    // the address book: replaced whole
)

// storeVersion is the version of the files. A newer one is left alone.
const storeVersion = 1

// Errors of a store.
var (
	ErrNoNetwork  = errors.New("the state folder belongs to no network yet")
	ErrNewerState = errors.New("the state folder was written by a newer version")
)

// networkFile is what a member cannot do without.
type networkFile struct {
	Version  uint64            `cbor:"0,keyasint"`
	Genesis  []byte            `cbor:"1,keyasint"`
	Keys     []identity.Secret `cbor:"2,keyasint"` // newest first
	RelayKey identity.Secret   `cbor:"3,keyasint"`
	Skew     int64             `cbor:"4,keyasint"` // milliseconds that the mesh's clock is ahead of the host's
}

// Store is a node's memory: a state folder, or nothing but this value. It is owned by Mesh.
type Store struct {
	dir     *safefile.Dir // nil: nothing outlasts the process
	network *networkFile
	ledger  *safefile.Log
	peers   *safefile.Log
	facts   []fact // what the logs held, until load took it
	book    *book
	notes   []string // what was found damaged
	damaged bool     // the network file was, now or in an earlier run
}

// OpenStore reads a state folder; dir nil keeps everything in memory. Damaged files are set aside, and Notes says so.
func OpenStore(dir *safefile.Dir, now time.Time) (*Store, error) {
	s := &Store{dir: dir, book: newBook()}
	if dir == nil {
		return s, nil
	}
	if err := s.readNetwork(now); err != nil {
		return nil, err
	}
	if err := s.openLogs(now); err != nil {
		return nil, err
	}
	if err := s.readBook(now); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Exists reports whether the store belongs to a network, and to which.
func (s *Store) Exists() (identity.NetworkID, bool) {
	if s.network == nil {
		return identity.NetworkID{}, false
	}
	g, err := s.genesis()
	if err != nil {
		return identity.NetworkID{}, false
	}
	return g.ID, true
}

// Notes are messages for people about files that were damaged.
func (s *Store) Notes() []string { return s.notes }

func (s *Store) genesis() (*ledger.Genesis, error) {
	signed, err := ledger.ParseSigned(s.network.Genesis)
	if err != nil {
		return nil, err
	}
	return ledger.ParseGenesis(signed)
}

func (s *Store) readNetwork(now time.Time) error {
	data, err := s.dir.Read(networkName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f := new(networkFile)
	err = dcbor.Unmarshal(data, f)
	if errors.Is(err, dcbor.ErrUnknownCritical) || err == nil && f.Version > storeVersion {
		return ErrNewerState
	}
	s.network = f
	if err == nil && len(f.Keys) > 0 {
		if _, err = s.genesis(); err == nil {
			return nil
		}
	}
	s.network, s.damaged = nil, true
	return s.setAside(networkName, now, "what else is in the folder is kept")
}

// Damaged reports that the folder belonged to a network which can no longer be read.
func (s *Store) Damaged() bool { return s.network == nil && (s.damaged || len(s.facts) > 0) }

// setAside keeps a damaged file for people to look at.
func (s *Store) setAside(name string, now time.Time, then string) error {
	to, err := s.dir.SetAside(name, now)
	if err != nil {
		return fmt.Errorf("set %s aside: %w", s.dir.Path(name), err)
	}
	s.notes = append(s.notes, fmt.Sprintf("%s is damaged and was kept as %s; %s", s.dir.Path(name), to, then))
	return nil
}

func (s *Store) openLogs(now time.Time) (err error) {
	if s.ledger, err = s.openLog(ledgerName, now); err != nil {
		return err
	}
	if s.peers, err = s.openLog(peersName, now); err != nil {
		s.ledger.Close()
	}
	return err
}

// openLog takes the facts of a log.
func (s *Store) openLog(name string, now time.Time) (*safefile.Log, error) {
	log, torn, err := s.dir.OpenLog(name, func(record []byte) error {
		if len(record) > 1 && factKind(record[0]) <= factReach {
			s.facts = append(s.facts, fact{kind: factKind(record[0]), raw: append([]byte(nil), record[1:]...)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.dir.Path(name), err)
	}
	switch {
	case log.Damaged():
		to, err := s.dir.KeepAside(name, now)
		if err != nil {
			return nil, errors.Join(err, log.Close())
		}
		s.notes = append(s.notes, fmt.Sprintf(
			"%s is damaged: a copy was kept as %s; its last %d bytes are cut off, the others know what they held", s.dir.Path(name), to, torn))
	case torn > 0:
		s.notes = append(s.notes, fmt.Sprintf(
			"%s ended in the middle of a record; %d bytes were cut off, the others know what they held", s.dir.Path(name), torn))
	}
	return log, nil
}

func (s *Store) readBook(now time.Time) error {
	data, err := s.dir.Read(bookName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f := new(bookFile)
	if err := dcbor.Unmarshal(data, f); err != nil {
		return s.setAside(bookName, now, "addresses are learnt anew")
	}
	s.book = f.book()
	return nil
}

// begin makes the store belong to a network. What the logs of an earlier one held is gone.
func (s *Store) begin(f *networkFile, first []fact) error {
	f.Version = storeVersion
	if s.dir != nil {
		// Facts first: a network file without them would be a node without its own admission.
		if err := s.resetLogs(first); err != nil {
			return err
		}
		if err := s.dir.Write(networkName, dcbor.Marshal(f)); err != nil {
			return err
		}
	}
	s.network, s.facts, s.book = f, first, newBook()
	return nil
}

func (s *Store) resetLogs(first []fact) error {
	s.ledger.Close()
	s.peers.Close()
	for _, name := range []string{ledgerName, peersName, bookName} {
		var err error
		if s.Damaged() { // somebody may yet repair the network that these belong to
			_, err = s.dir.SetAside(name, time.Now())
		} else {
			err = s.dir.Remove(name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	s.facts = nil
	if err := s.openLogs(time.Now()); err != nil {
		return err
	}
	return s.appendTo(s.ledger, first)
}

// appendTo writes facts behind the others, with one sync.
func (s *Store) appendTo(log *safefile.Log, all []fact) error {
	if s.dir == nil || len(all) == 0 {
		return nil
	}
	return log.Append(records(all)...)
}

func records(all []fact) [][]byte {
	out := make([][]byte, len(all))
	for i, f := range all {
		out[i] = append([]byte{byte(f.kind)}, f.raw...)
	}
	return out
}

// logged is about how many bytes a fact of n bytes takes in a log.
func logged(n int) int64 { return int64(n) + 16 }

// stale reports whether most of the log of cards and reaches is old; live are the bytes that the newest ones take.
func (s *Store) stale(live int64) bool { return s.dir != nil && s.peers.Size() >= 2*live+64<<10 }

// compact rewrites the log of cards and reaches with the newest ones only.
func (s *Store) compact(newest []fact) error { return s.peers.Replace(records(newest)...) }

func (s *Store) saveNetwork() error {
	if s.dir == nil {
		return nil
	}
	return s.dir.Write(networkName, dcbor.Marshal(s.network))
}

func (s *Store) saveBook(f *bookFile) error {
	if s.dir == nil {
		return nil
	}
	return s.dir.Write(bookName, dcbor.Marshal(f))
}

// Close closes the files.
func (s *Store) Close() error {
	if s.dir == nil {
		return nil
	}
	return errors.Join(s.ledger.Close(), s.peers.Close())
}

// Found makes the store the founder's of a new network.
func (s *Store) Found(self *identity.Identity, params ledger.FoundParams, now time.Time) error {
	k := identity.NewSecret()
	g, err := ledger.Found(self, params, k, now)
	if err != nil {
		return err
	}
	return s.begin(&networkFile{
		Genesis: g.Signed.Marshal(), Keys: []identity.Secret{k}, RelayKey: identity.NewSecret(),
	}, nil)
}
