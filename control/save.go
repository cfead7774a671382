package control

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	flushAfter = 500 * time.Millisecond // facts wait for others to be written with
	bookEvery  = 30 * time.Second
)

// save writes what changed, soon after it did. While nothing does it sleeps.
func (m *Mesh) save(ctx context.Context) {
	flush := time.NewTimer(0) // New may have left facts behind
	defer flush.Stop()
	book := time.NewTicker(bookEvery)
	defer book.Stop()
	soon := true // flush is set
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.toSave:
			if !soon {
				soon = true
				flush.Reset(flushAfter)
			}
		case <-flush.C:
			soon = false
			if err := m.flush(); err != nil {
				m.log.Debug("save", "err", err) // health tells people
				soon = true
				flush.Reset(flushAfter)
			}
		case <-book.C:
			if err := m.saveBook(); err != nil {
				m.log.Debug("save", "err", err)
			}
		}
	}
}

// flush writes what is unsaved, with one sync per file. Called without mu.
func (m *Mesh) flush() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.mu.Lock()
	unsaved := m.unsaved
	if m.unsaved = nil; len(unsaved) == 0 {
		m.factsErr = nil
		m.mu.Unlock()
		return nil
	}
	m.mu.Unlock()
	var statements, cards []fact
	for _, f := range unsaved {
		if f.kind == factCard || f.kind == factReach {
			cards = append(cards, f)
		} else {
			statements = append(statements, f)
		}
	}
	err := m.store.appendTo(m.store.ledger, statements)
	if err == nil {
		statements = nil
		if err = m.store.appendTo(m.store.peers, cards); err == nil {
			cards, err = nil, m.compact()
		}
	}
	m.mu.Lock()
	m.factsErr = err
	m.unsaved = slices.Concat(statements, cards, m.unsaved)
	m.mu.Unlock()
	return err
}

// compact rewrites the log of cards and reaches once most of it is old. Called with saving held, or before Run.
func (m *Mesh) compact() error {
	var newest []fact
	m.mu.Lock()
	live := int64(0)
	for _, c := range m.cards {
		live += logged(len(c.signed))
	}
	for _, r := range m.reaches {
		live += logged(len(r.signed))
	}
	stale := m.store.stale(live)
	if stale {
		newest = m.cardFacts()
	}
	m.mu.Unlock()
	if !stale {
		return nil
	}
	return m.store.compact(newest)
}

// saveBook writes the address book if it changed, and the clock's difference if that moved by more than a minute.
func (m *Mesh) saveBook() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.hear()
	m.mu.Lock()
	skew := int64(m.clock.skew(m.wall()) / time.Millisecond)
	moved := (skew-m.store.network.Skew) > 60_000 || (skew-m.store.network.Skew) < -60_000
	before := m.store.network.Skew
	m.store.network.Skew = skew
	var file *bookFile
	if m.book.changed {
		m.book.changed, file = false, m.book.file()
	}
	m.mu.Unlock()
	var networkErr, bookErr error
	if moved {
		networkErr = m.store.saveNetwork()
	}
	if file != nil {
		bookErr = m.store.saveBook(file)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if networkErr != nil {
		m.store.network.Skew = before
	}
	m.book.changed = m.book.changed || bookErr != nil
	if moved || file != nil {
		m.bookErr = errors.Join(networkErr, bookErr)
	}
	return errors.Join(networkErr, bookErr)
}

// SaveError is why state could not be written the last time; nil when it could.
func (m *Mesh) SaveError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(m.factsErr, m.bookErr)
}
