package control

import (
	"errors"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/shelf"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
)

// Types of the messages of a session.
const (
	typeHello  wire.Type = 1
	typeFacts  wire.Type = 2
	typePing   wire.Type = 3
	typePong   wire.Type = 4
	typeHave   wire.Type = 5
	typeWant   wire.Type = 6
	typeDigest wire.Type = 7
	typeClose  wire.Type = 8
	typeRing   wire.Type = 9 // a frame of package ring
	typeOffer  wire.Type = 11
	typeAsk    wire.Type = 12
	typeSums   wire.Type = 13
)

// stage of a Hello.
type stage uint8

const (
	stageInitial stage = 1
	stageFinal   stage = 2
)

// hello opens a session. INITIAL says who we are and how we see the other; FINAL repeats both by hash, so that each
// side knows that the other read what was sent.
type hello struct {
	Stage   stage              `cbor:"0,keyasint"`
	Network identity.NetworkID `cbor:"1,keyasint"`
	Card    []byte             `cbor:"2,keyasint,omitempty"` // me
	Reach   []byte             `cbor:"3,keyasint,omitempty"` // me: how I think I am reachable
	You     []byte             `cbor:"4,keyasint,omitempty"` // you: the underlay address I see you at
	Digest  *digest            `cbor:"5,keyasint,omitempty"`
	Me      *identity.Hash     `cbor:"6,keyasint,omitempty"` // FINAL: hash of my INITIAL
	Theirs  *identity.Hash     `cbor:"7,keyasint,omitempty"` // FINAL: hash of yours
	Version uint64             `cbor:"8,keyasint"`
}

// digest tells two nodes whether they know the same.
type digest struct {
	Heads   []identity.Hash `cbor:"0,keyasint"`           // of the ledger
	Records identity.Hash   `cbor:"1,keyasint"`           // root of all admits and acceptances
	Cards   identity.Hash   `cbor:"2,keyasint"`           // root of all cards
	Reaches *identity.Hash  `cbor:"3,keyasint,omitempty"` // of all reaches, where everybody keeps them
}

// sums are those of the buckets of what differs.
type sums struct {
	Records []byte `cbor:"0,keyasint,omitempty"` // shelf.SumsSize
	Cards   []byte `cbor:"1,keyasint,omitempty"`
}

// facts are things that the other side lacks, as their authors signed them.
type facts struct {
	Statements  [][]byte `cbor:"0,keyasint,omitempty"`
	Admits      [][]byte `cbor:"1,keyasint,omitempty"`
	Acceptances [][]byte `cbor:"2,keyasint,omitempty"`
	Cards       [][]byte `cbor:"3,keyasint,omitempty"`
	Reaches     [][]byte `cbor:"4,keyasint,omitempty"`
}

// have lists what its sender has, where digests differ. What stands in the named buckets is all there; nil names none.
type have struct {
	Heads      []identity.Hash `cbor:"0,keyasint"`
	RecordsOf  []byte          `cbor:"1,keyasint,omitempty"` // a shelf.Part
	Records    []identity.Hash `cbor:"2,keyasint,omitempty"`
	CardsOf    []byte          `cbor:"3,keyasint,omitempty"` // a shelf.Part
	Cards      []version       `cbor:"4,keyasint,omitempty"`
	AllReaches bool            `cbor:"5,keyasint"`
	Reaches    []version       `cbor:"6,keyasint,omitempty"`
}

// version names the newest card or reach that somebody has of a node.
type version struct {
	Node identity.PeerID `cbor:"0,keyasint"`
	Seq  uint64          `cbor:"1,keyasint"`
}

// tags names facts that go round: 8 bytes for each (tagOf).
type tags struct {
	Tags []byte `cbor:"0,keyasint"`
}

// want asks for what a have showed to be missing.
type want struct {
	Heads   []identity.Hash   `cbor:"0,keyasint"` // what its sender has: send what is behind
	Records []identity.Hash   `cbor:"1,keyasint,omitempty"`
	Nodes   []identity.PeerID `cbor:"2,keyasint,omitempty"`
}

// ping measures a session; its pong is the same bytes.
type ping struct {
	Nonce uint64 `cbor:"0,keyasint"`
	Time  uint64 `cbor:"1,keyasint"` // the sender's clock, unix milliseconds
}

// closing says why a session ends.
type closing struct {
	Reason string `cbor:"0,keyasint"`
}

// The reasons of a closing.
const (
	reasonDuplicate = "duplicate"
	reasonGoodbye   = "goodbye"
	reasonProtocol  = "protocol"
	reasonRevoked   = "revoked"
	reasonFull      = "full"
	reasonSurplus   = "surplus"
	reasonSlow      = "slow"
	reasonNetwork   = "another network"
	reasonVersion   = "another version"
	reasonIdentity  = "not who you say"
)

const (
	maxHeads      = 4096
	maxListed     = 1 << 14
	maxTags       = 1 << 12
	factsPerFrame = 256 << 10 // bytes
)

// sessionVersion is the version of the messages here, in every Hello.
const sessionVersion = 1

// Errors that end a session.
var (
	errProtocol = errors.New("message out of order or out of bounds")
	errNetwork  = errors.New("peer of another network")
	errIdentity = errors.New("card is not that of the node the stream leads to")
	errConfirm  = errors.New("peer confirmed something else than was sent")
	errVersion  = errors.New("peer speaks another version")
)

func (d *digest) valid() bool { return len(d.Heads) <= maxHeads }

func (h *have) valid() bool {
	part := func(b []byte) bool { return b == nil || len(b) == len(shelf.Part{}) }
	return len(h.Heads) <= maxHeads && part(h.RecordsOf) && part(h.CardsOf) &&
		len(h.Records) <= maxListed && len(h.Cards) <= maxListed && len(h.Reaches) <= maxListed
}

func (x *sums) valid() bool {
	fits := func(b []byte) bool { return b == nil || len(b) == shelf.SumsSize }
	return fits(x.Records) && fits(x.Cards)
}

func (x *tags) valid() bool { return len(x.Tags)%tagSize == 0 && len(x.Tags) <= maxTags*tagSize }

func (w *want) valid() bool {
	return len(w.Heads) <= maxHeads && len(w.Records) <= maxListed && len(w.Nodes) <= maxListed
}

// fact is one signed thing with its kind.
type fact struct {
	kind factKind
	id   identity.Hash   // of a statement, admit or acceptance
	node identity.PeerID // of a card or reach
	seq  uint64          // of a card or reach
	raw  []byte
}

type factKind uint8

const (
	factStatement factKind = iota
	factAdmit
	factAcceptance
	factCard
	factReach
)

// pack puts facts into messages of bounded size, in order.
func pack(all []fact) []*facts {
	var messages []*facts
	var current *facts
	size := 0
	for _, f := range all {
		if current == nil || size+len(f.raw) > factsPerFrame {
			current, size = new(facts), 0
			messages = append(messages, current)
		}
		size += len(f.raw) + 8
		switch f.kind {
		case factStatement:
			current.Statements = append(current.Statements, f.raw)
		case factAdmit:
			current.Admits = append(current.Admits, f.raw)
		case factAcceptance:
			current.Acceptances = append(current.Acceptances, f.raw)
		case factCard:
			current.Cards = append(current.Cards, f.raw)
		case factReach:
			current.Reaches = append(current.Reaches, f.raw)
		}
	}
	return messages
}

func statementFact(s ledger.Signed) fact {
	return fact{kind: factStatement, id: identity.Sum(identity.PurposeStatement, s.Body), raw: s.Marshal()}
}

func recordFact(r ledger.Record) fact {
	if r.Acceptance != nil {
		return fact{kind: factAcceptance, id: r.ID, raw: r.Acceptance.Marshal()}
	}
	return fact{kind: factAdmit, id: r.ID, raw: r.Admit}
}

func cardFact(c *Card) fact { return fact{kind: factCard, node: c.Node, seq: c.Seq, raw: c.signed} }

func reachFact(r *Reach) fact { return fact{kind: factReach, node: r.Node, seq: r.Seq, raw: r.signed} }
