package join

import (
	"crypto/mlkem"
	"errors"
	"fmt"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// Types of the messages of a join stream.
const (
	typeHello   wire.Type = 32
	typeProof   wire.Type = 33
	typeConfirm wire.Type = 34
	typeAccept  wire.Type = 35
	typeRefuse  wire.Type = 36
	typeLedger  wire.Type = 37
	typeEnd     wire.Type = 38
)

// Bounds of the ledger that is handed over, in bytes of a frame and of all.
const (
	ledgerFrame = 256 << 10
	maxLedger   = 64 << 20
)

// maxKeys bounds the generations of K that are handed over.
const maxKeys = 1024

// Errors of a join stream.
var (
	ErrProtocol  = errors.New("join stream out of order")
	ErrImpostor  = errors.New("the answerer's proof of membership does not hold")
	ErrWrongKeys = errors.New("the network keys do not match the genesis")
)

// RefusedError is the other side's refusal.
type RefusedError struct {
	Word Word
	Text string
}

// Error names the word and what was said.
func (e *RefusedError) Error() string { return fmt.Sprintf("refused: %s: %s", e.Word, e.Text) }

type helloMessage struct {
	Network identity.NetworkID `cbor:"0,keyasint"`
	Admit   []byte             `cbor:"1,keyasint"`
	Invite  []byte             `cbor:"2,keyasint"`
	Grants  [][]byte           `cbor:"3,keyasint,omitempty"`
	KEM     []byte             `cbor:"4,keyasint"` // ML-KEM-768 encapsulation key (FIPS 203)
}

type proofMessage struct {
	Genesis []byte `cbor:"0,keyasint"`
	Proof   []byte `cbor:"1,keyasint"`
}

type confirmMessage struct {
	Genesis identity.NetworkID `cbor:"0,keyasint"`
}

type acceptMessage struct {
	Acceptance []byte `cbor:"0,keyasint"`
	KEM        []byte `cbor:"1,keyasint"` // ciphertext
	Sealed     []byte `cbor:"2,keyasint"` // handover under the shared key
}

// handover is what a member gets once it is one.
type handover struct {
	Keys     []identity.Secret `cbor:"0,keyasint"` // generations of K, newest first
	RelayKey identity.Secret   `cbor:"1,keyasint"`
}

// ledgerMessage is a part of a Knowledge, in the order in which it can be added. An end message follows the last.
type ledgerMessage struct {
	Statements  [][]byte `cbor:"0,keyasint,omitempty"`
	Admits      [][]byte `cbor:"1,keyasint,omitempty"`
	Acceptances [][]byte `cbor:"2,keyasint,omitempty"`
	Cards       [][]byte `cbor:"3,keyasint,omitempty"`
	Reaches     [][]byte `cbor:"4,keyasint,omitempty"`
}

type refuseMessage struct {
	Word Word   `cbor:"0,keyasint"`
	Text string `cbor:"1,keyasint"`
}

func handoverKey(shared []byte, network identity.NetworkID, admit identity.Hash) identity.Secret {
	return identity.Derive(shared, network, "meshnet/join-k/v1", admit[:])
}

// Entering is what a joiner proves.
type Entering struct {
	Network  identity.NetworkID
	Admit    *ledger.Admit
	Invite   ledger.Signed
	Grants   []ledger.Signed
	Answerer identity.PeerID // who the stream leads to
	WG       identity.WGKey  // the key that WireGuard authenticated it by
}

// Entry is what a joiner gets.
type Entry struct {
	Genesis    *ledger.Genesis
	Acceptance ledger.Signed
	Keys       []identity.Secret
	RelayKey   identity.Secret
	Knowledge
}

// Knowledge is what the members know, as its authors signed it. A joiner gets all of it, so that it knows everybody
// before it counts as joined. Nothing in it is checked here.
type Knowledge struct {
	Statements     []ledger.Signed // the whole ledger, parents first
	Records        []ledger.Record // all admissions; ids are unset on the joiner's side
	Cards, Reaches [][]byte
}

// Enter runs the joiner's side of a join stream, behind the prefaces. Nothing of what came is used elsewhere before
// the answerer's proof held and its acceptance names our admit.
func Enter(c *wire.Conn, in Entering) (*Entry, error) {
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	hello := helloMessage{
		Network: in.Network, Admit: in.Admit.Raw, Invite: in.Invite.Marshal(),
		KEM: kem.EncapsulationKey().Bytes(),
	}
	for _, g := range in.Grants {
		hello.Grants = append(hello.Grants, g.Marshal())
	}
	if err := c.WriteMessage(typeHello, &hello); err != nil {
		return nil, err
	}
	var proof proofMessage
	if err := expect(c, typeProof, &proof); err != nil {
		return nil, err
	}
	genesis, err := checkProof(in, proof)
	if err != nil {
		return nil, err
	}
	if err := c.WriteMessage(typeConfirm, &confirmMessage{Genesis: genesis.ID}); err != nil {
		return nil, err
	}
	var accept acceptMessage
	if err := expect(c, typeAccept, &accept); err != nil {
		return nil, err
	}
	entry, err := finish(in, genesis, kem, accept)
	if err != nil {
		return nil, err
	}
	return entry, entry.read(c)
}

func checkProof(in Entering, m proofMessage) (*ledger.Genesis, error) {
	signed, err := ledger.ParseSigned(m.Genesis)
	if err != nil {
		return nil, err
	}
	genesis, err := ledger.ParseGenesis(signed)
	if err != nil {
		return nil, err
	}
	if genesis.ID != in.Network {
		return nil, ErrImpostor
	}
	member, err := ledger.VerifyProof(genesis, m.Proof, in.Answerer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImpostor, err)
	}
	if member.WG != in.WG {
		return nil, ErrImpostor
	}
	return genesis, nil
}

func finish(in Entering, g *ledger.Genesis, kem *mlkem.DecapsulationKey768, m acceptMessage) (*Entry, error) {
	signed, err := ledger.ParseSigned(m.Acceptance)
	if err != nil {
		return nil, err
	}
	acceptance, err := ledger.ParseAcceptance(signed, in.Network)
	if err != nil {
		return nil, err
	}
	if acceptance.Admit != in.Admit.ID || acceptance.Acceptor != in.Answerer {
		return nil, ErrProtocol
	}
	shared, err := kem.Decapsulate(m.KEM)
	if err != nil {
		return nil, ErrMalformed
	}
	plain, err := aead(handoverKey(shared, in.Network, in.Admit.ID)).Open(nil, zeroNonce[:], m.Sealed, nil)
	if err != nil {
		return nil, ErrSeal
	}
	var h handover
	if err := dcbor.Unmarshal(plain, &h); err != nil || len(h.Keys) == 0 || len(h.Keys) > maxKeys {
		return nil, ErrMalformed
	}
	if ledger.Commit(h.Keys[len(h.Keys)-1]) != g.Commit {
		return nil, ErrWrongKeys
	}
	return &Entry{Genesis: g, Acceptance: signed, Keys: h.Keys, RelayKey: h.RelayKey}, nil
}

// read takes the knowledge in.
func (k *Knowledge) read(c *wire.Conn) error {
	for total := 0; total <= maxLedger; {
		t, body, err := c.ReadMessage()
		switch {
		case err != nil:
			return err
		case t == typeEnd:
			return nil
		case t != typeLedger:
			return ErrProtocol
		}
		total += len(body)
		var m ledgerMessage
		if err := dcbor.Unmarshal(body, &m); err != nil {
			return ErrMalformed
		}
		if err := k.take(&m); err != nil {
			return err
		}
	}
	return ledger.ErrTooLarge
}

func (k *Knowledge) take(m *ledgerMessage) error {
	k.Cards, k.Reaches = append(k.Cards, m.Cards...), append(k.Reaches, m.Reaches...)
	for _, raw := range m.Statements {
		s, err := ledger.ParseSigned(raw)
		if err != nil {
			return err
		}
		k.Statements = append(k.Statements, s)
	}
	for _, raw := range m.Admits {
		k.Records = append(k.Records, ledger.Record{Admit: raw})
	}
	for _, raw := range m.Acceptances {
		s, err := ledger.ParseSigned(raw)
		if err != nil {
			return err
		}
		k.Records = append(k.Records, ledger.Record{Acceptance: &s})
	}
	return nil
}

// write sends the knowledge in frames of bounded size.
func (k *Knowledge) write(c *wire.Conn) error {
	w := knowledgeWriter{conn: c}
	for _, s := range k.Statements {
		w.add(&w.m.Statements, s.Marshal())
	}
	for _, r := range k.Records {
		if r.Acceptance != nil {
			w.add(&w.m.Acceptances, r.Acceptance.Marshal())
		} else {
			w.add(&w.m.Admits, r.Admit)
		}
	}
	for _, raw := range k.Cards {
		w.add(&w.m.Cards, raw)
	}
	for _, raw := range k.Reaches {
		w.add(&w.m.Reaches, raw)
	}
	w.flush()
	if w.err != nil {
		return w.err
	}
	return c.WriteMessage(typeEnd, &struct{}{})
}

// knowledgeWriter fills one frame after another. Its first error stays.
type knowledgeWriter struct {
	conn *wire.Conn
	m    ledgerMessage
	size int
	err  error
}

// add puts raw into a list of the current frame, which it sends when it is full.
func (w *knowledgeWriter) add(list *[][]byte, raw []byte) {
	*list = append(*list, raw)
	if w.size += len(raw) + 8; w.size >= ledgerFrame {
		w.flush()
	}
}

func (w *knowledgeWriter) flush() {
	if w.err == nil {
		w.err = w.conn.WriteMessage(typeLedger, &w.m)
	}
	w.m, w.size = ledgerMessage{}, 0
}

// Letting is what a member needs to let somebody in.
type Letting struct {
	Genesis ledger.Signed
	Network identity.NetworkID
	Joiner  identity.PeerID // who the stream leads to, as WireGuard authenticated it
	Proof   ledger.Proof    // of this node
	// Accept adds the invite and grants to the ledger, accepts the admit and returns the acceptance with the keys to
	// hand over. It returns a *RefusedError for a refusal.
	Accept func(admit *ledger.Admit, invite ledger.Signed, grants []ledger.Signed) (
		acceptance ledger.Signed, keys []identity.Secret, relayKey identity.Secret, err error)
	// Knowledge is asked for once the joiner is a member, and so a part of it.
	Knowledge func() Knowledge
}

// Let runs the answerer's side of a join stream, behind the prefaces. It returns the admit once it was accepted, also
// when the joiner may not have heard of it.
func Let(c *wire.Conn, in Letting) (*ledger.Admit, error) {
	var hello helloMessage
	if err := expect(c, typeHello, &hello); err != nil {
		return nil, err
	}
	if hello.Network != in.Network {
		return nil, ledger.ErrForeignNetwork
	}
	admit, invite, grants, err := parseHello(in, hello)
	if err != nil {
		return nil, err
	}
	kem, err := mlkem.NewEncapsulationKey768(hello.KEM)
	if err != nil {
		return nil, ErrMalformed
	}
	proof := proofMessage{Genesis: in.Genesis.Marshal(), Proof: in.Proof}
	if err := c.WriteMessage(typeProof, &proof); err != nil {
		return nil, err
	}
	var confirm confirmMessage
	if err := expect(c, typeConfirm, &confirm); err != nil {
		return nil, err
	}
	if confirm.Genesis != in.Network {
		return nil, ErrProtocol
	}
	acceptance, keys, relayKey, err := in.Accept(admit, invite, grants)
	if err != nil {
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			_ = c.WriteMessage(typeRefuse, &refuseMessage{refused.Word, refused.Text}) // the stream ends either way
		}
		return nil, err
	}
	shared, ciphertext := kem.Encapsulate()
	plain := dcbor.Marshal(&handover{Keys: keys, RelayKey: relayKey})
	sealed := aead(handoverKey(shared, in.Network, admit.ID)).Seal(nil, zeroNonce[:], plain, nil)
	accept := acceptMessage{Acceptance: acceptance.Marshal(), KEM: ciphertext, Sealed: sealed}
	if err := c.WriteMessage(typeAccept, &accept); err != nil {
		return admit, err
	}
	knowledge := in.Knowledge()
	return admit, knowledge.write(c)
}

func parseHello(in Letting, m helloMessage) (*ledger.Admit, ledger.Signed, []ledger.Signed, error) {
	admit, err := ledger.ParseAdmit(m.Admit, in.Network)
	if err != nil {
		return nil, ledger.Signed{}, nil, err
	}
	if admit.Node != in.Joiner {
		return nil, ledger.Signed{}, nil, ErrProtocol
	}
	invite, err := ledger.ParseSigned(m.Invite)
	if err != nil {
		return nil, ledger.Signed{}, nil, err
	}
	if len(m.Grants) > 64 {
		return nil, ledger.Signed{}, nil, ErrMalformed
	}
	var grants []ledger.Signed
	for _, raw := range m.Grants {
		g, err := ledger.ParseSigned(raw)
		if err != nil {
			return nil, ledger.Signed{}, nil, err
		}
		grants = append(grants, g)
	}
	return admit, invite, grants, nil
}

// expect reads the one message that may come now, or the refusal that may come instead.
func expect(c *wire.Conn, want wire.Type, v any) error {
	t, body, err := c.ReadMessage()
	if err != nil {
		return err
	}
	if t == typeRefuse {
		var r refuseMessage
		if err := dcbor.Unmarshal(body, &r); err != nil || !r.Word.known() || len(r.Text) > 256 {
			return ErrMalformed
		}
		return &RefusedError{r.Word, r.Text}
	}
	if t != want {
		return ErrProtocol
	}
	if err := dcbor.Unmarshal(body, v); err != nil {
		return ErrMalformed
	}
	return nil
}
