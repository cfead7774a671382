package ledger

import (
	"iter"

	"github.com/meshnet/meshnet/control/shelf"
	"github.com/meshnet/meshnet/identity"
)

// Record is an admit or an acceptance as it came. Exactly one of the two is set.
type Record struct {
	ID         identity.Hash
	Admit      []byte
	Acceptance *Signed
}

// record is a Record that is held, or one that waits.
type record struct {
	admit      *admission
	acceptance *Acceptance
}

func (r record) id() identity.Hash {
	if r.admit != nil {
		return r.admit.ID
	}
	return r.acceptance.ID
}

func (r record) export() Record {
	if r.admit != nil {
		return Record{ID: r.admit.ID, Admit: r.admit.Raw}
	}
	return Record{ID: r.acceptance.ID, Acceptance: &r.acceptance.Signed}
}

// admission is an admit with the acceptances that name it.
type admission struct {
	*Admit
	acceptances []*Acceptance
}

// AddAdmit takes an admit in. It counts as a record once its invite is known and either an admin's keep or an
// acceptance by somebody who was admitted names it: so nobody without a member's help fills other nodes' disks. Until
// then it waits. It reports false without an error for one it has already. raw is kept and must not be changed.
func (l *Ledger) AddAdmit(raw []byte) (added bool, err error) {
	if id, err := admitID(raw); err != nil || l.has(id) {
		return false, err
	}
	a, err := Share(l.shared, "admit", raw, func() (*Admit, error) { return ParseAdmit(raw, l.genesis.ID) })
	if err != nil {
		return false, err
	}
	if err := l.checkInvite(a); err != nil {
		return false, err
	}
	l.open.add(a.ID, record{admit: &admission{Admit: a}}, len(raw))
	l.settle(a.ID)
	return true, nil
}

// has reports whether an admit or acceptance is held, or waits.
func (l *Ledger) has(id identity.Hash) bool {
	_, waits := l.open.get(id)
	return waits || l.admissions[id] != nil || l.acceptances[id] != nil
}

// checkInvite verifies the invite's signature if the invite is known.
func (l *Ledger) checkInvite(a *Admit) error {
	st := l.byID[a.Invite]
	if st == nil {
		return nil
	}
	terms, ok := st.Invite()
	if !ok {
		return ErrUnknownInvite
	}
	_, err := Share(l.shared, "invited", a.Raw, func() (struct{}, error) { return struct{}{}, a.VerifyInvite(terms.Key) })
	return err
}

// AddAcceptance takes an acceptance in. It waits until its admit, that one's invite, its ledger heads and its
// acceptor's own admission are known. It reports false without an error for one it has already. The slices of s are kept
// and must not be changed.
func (l *Ledger) AddAcceptance(s Signed) (added bool, err error) {
	if len(s.Body) > maxRecord {
		return false, ErrTooLarge
	}
	id := identity.Sum(identity.PurposeAcceptance, s.Body)
	if l.has(id) {
		return false, nil
	}
	x, err := Share(l.shared, "acceptance", s.Marshal(), func() (*Acceptance, error) {
		return ParseAcceptance(s, l.genesis.ID)
	})
	if err != nil {
		return false, err
	}
	l.open.add(id, record{acceptance: x}, len(s.Body))
	l.settle(id)
	return true, nil
}

// settleStatement wakes the records that waited for a statement, and those that a keep names.
func (l *Ledger) settleStatement(st *Statement) {
	if k, ok := st.content.(*keeping); ok && l.admin(st.Author) {
		for _, e := range k.Entries {
			if l.admissions[e.Admit] == nil {
				l.kept[e.Admit] = true
				l.settle(e.Admit)
			}
		}
	}
	l.settle(l.open.waiters(st.ID)...)
}

// settle looks again at waiting records, and at all that waited for one that now counts.
func (l *Ledger) settle(queue ...identity.Hash) {
	for len(queue) > 0 {
		id := queue[0]
		queue = queue[1:]
		r, ok := l.open.get(id)
		switch {
		case !ok:
		case r.admit != nil:
			queue = append(queue, l.settleAdmit(r.admit)...)
		default:
			queue = append(queue, l.settleAcceptance(r.acceptance)...)
		}
	}
}

// settleAdmit lets an admit count if it can by itself, and returns who is to be looked at next.
func (l *Ledger) settleAdmit(a *admission) []identity.Hash {
	if l.byID[a.Invite] == nil {
		l.open.wait(a.ID, a.Invite)
		return nil
	}
	if l.checkInvite(a.Admit) != nil {
		l.open.remove(a.ID)
		return nil
	}
	l.open.wait(a.ID, identity.Hash{})
	if l.kept[a.ID] {
		return l.count(a)
	}
	return l.open.waiters(a.ID)
}

func (l *Ledger) settleAcceptance(x *Acceptance) []identity.Hash {
	a := l.admissions[x.Admit]
	if a == nil {
		r, ok := l.open.get(x.Admit)
		if !ok || r.admit == nil {
			l.open.wait(x.ID, x.Admit)
			return nil
		}
		a = r.admit
	}
	if missing, ok := l.missingFor(a, x); !ok {
		l.open.wait(x.ID, missing)
		return nil
	}
	var next []identity.Hash
	if l.admissions[x.Admit] == nil {
		if l.checkInvite(a.Admit) != nil {
			l.open.remove(a.ID)
			l.open.remove(x.ID)
			return nil
		}
		next = l.count(a)
	}
	l.open.remove(x.ID)
	a.acceptances = append(a.acceptances, x)
	l.acceptedBy[x.Acceptor] = append(l.acceptedBy[x.Acceptor], x)
	l.acceptances[x.ID] = x
	l.append(record{acceptance: x})
	return next
}

func (l *Ledger) missingFor(a *admission, x *Acceptance) (identity.Hash, bool) {
	if l.byID[a.Invite] == nil {
		return a.Invite, false
	}
	for _, h := range x.Heads {
		if l.byID[h] == nil {
			return h, false
		}
	}
	if !l.nodes[x.Acceptor] {
		return identity.Hash(x.Acceptor), false
	}
	return identity.Hash{}, true
}

// count makes an admit a record and returns who waited for it or for its node.
func (l *Ledger) count(a *admission) []identity.Hash {
	l.open.remove(a.ID)
	l.admissions[a.ID] = a
	if delete(l.kept, a.ID); len(l.kept) == 0 {
		l.kept = map[identity.Hash]bool{} // an emptied one keeps its size
	}
	l.nodes[a.Node] = true
	l.append(record{admit: a})
	return append(l.open.waiters(a.ID), l.open.waiters(identity.Hash(a.Node))...)
}

func (l *Ledger) append(r record) {
	l.records = append(l.records, r)
	l.admitted.Put(r.id(), 0)
	l.cache.drop()
}

// Records are the admits and acceptances behind the first from, in an order in which they can be added again.
func (l *Ledger) Records(from int) iter.Seq[Record] {
	records := l.records[min(from, len(l.records)):]
	return func(yield func(Record) bool) {
		for _, r := range records {
			if !yield(r.export()) {
				return
			}
		}
	}
}

// Record finds an admit or acceptance by its id.
func (l *Ledger) Record(id identity.Hash) (Record, bool) {
	if a := l.admissions[id]; a != nil {
		return record{admit: a}.export(), true
	}
	if x := l.acceptances[id]; x != nil {
		return record{acceptance: x}.export(), true
	}
	return Record{}, false
}

// Admission is an admit and all acceptances of it, by the admit's id.
func (l *Ledger) Admission(admit identity.Hash) (raw []byte, acceptances []Signed, ok bool) {
	a := l.admissions[admit]
	if a == nil {
		return nil, nil, false
	}
	for _, x := range a.acceptances {
		acceptances = append(acceptances, x.Signed)
	}
	return a.Raw, acceptances, true
}

// Admitted are the ids of all records. borrowed: it is the ledger's, and not to be changed.
func (l *Ledger) Admitted() *shelf.Set { return &l.admitted }
