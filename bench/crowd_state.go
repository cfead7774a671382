package main

import (
	"errors"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/internal/safefile"
)

// The first byte of the records in a state folder's logs.
const (
	recordStatement byte = iota
	recordAdmit
	recordAcceptance
	recordCard
	recordReach
)

// networkFile is the file of a state folder that says which network it is of.
type networkFile struct {
	Version  uint64            `cbor:"0,keyasint"`
	Genesis  []byte            `cbor:"1,keyasint"`
	Keys     []identity.Secret `cbor:"2,keyasint"`
	RelayKey identity.Secret   `cbor:"3,keyasint"`
	Skew     int64             `cbor:"4,keyasint"`
}

// write makes the founder's state folder: what its node would have on disk.
func (c *crowd) write(path string, now time.Time) error {
	dir, err := safefile.Open(path)
	if err != nil {
		return err
	}
	if err := c.founder.Save(dir); err != nil {
		return err
	}
	if err := appendLog(dir, "ledger.log", c.ledgerRecords()); err != nil {
		return err
	}
	var cards [][]byte
	for i := range c.others {
		o := &c.others[i]
		cards = append(cards, record(recordCard, c.card(o, now)), record(recordReach, c.reach(o, now)))
	}
	if err := appendLog(dir, "peers.log", cards); err != nil {
		return err
	}
	return dir.Write("network.cbor", dcbor.Marshal(&networkFile{
		Version: 1, Genesis: c.ledger.Genesis().Signed.Marshal(),
		Keys: []identity.Secret{c.key}, RelayKey: identity.NewSecret(),
	}))
}

// ledgerRecords are all statements, then who was admitted by them, in an order in which they can be read again.
func (c *crowd) ledgerRecords() (all [][]byte) {
	for s := range c.ledger.Statements(0) {
		all = append(all, record(recordStatement, s.Marshal()))
	}
	for r := range c.ledger.Records(0) {
		if r.Acceptance != nil {
			all = append(all, record(recordAcceptance, r.Acceptance.Marshal()))
		} else {
			all = append(all, record(recordAdmit, r.Admit))
		}
	}
	return all
}

func record(kind byte, raw []byte) []byte { return append([]byte{kind}, raw...) }

func appendLog(dir *safefile.Dir, name string, records [][]byte) error {
	log, _, err := dir.OpenLog(name, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	return errors.Join(log.Append(records...), log.Close())
}
