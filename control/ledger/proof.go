package ledger

import (
	"bytes"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// Bounds of a proof.
const (
	MaxProof      = 256 << 10
	maxProofLinks = 64
)

// Proof shows that somebody was admitted, to whoever has the genesis: a chain of links from it up to the founder. It
// cannot show that nobody was revoked.
type Proof []byte

// ProvenMember is what a proof shows.
type ProvenMember struct {
	ID         identity.PeerID
	WG         identity.WGKey
	Disco      identity.DiscoKey
	Generation uint32
	Admitted   time.Time
	AdmitID    identity.Hash // zero for the founder
	InviteID   identity.Hash
	Tags       []string
	Links      int // 0 for the founder
}

// Proof makes the proof of a member, revoked or not. Its errors are ErrUnknownMember and ErrTooLarge: a chain beyond
// 64 links or 256 KiB, which an admin's keep makes short.
func (l *Ledger) Proof(id identity.PeerID) (Proof, error) {
	st := l.settled()
	links := [][][]byte{}
	for id != l.genesis.Founder {
		m, ok := st.Member(id)
		if !ok {
			return nil, ErrUnknownMember
		}
		if len(links) == maxProofLinks {
			return nil, ErrTooLarge
		}
		links = append(links, l.proofLink(m))
		id = m.Acceptor
	}
	p := dcbor.Marshal(links)
	if len(p) > MaxProof {
		return nil, ErrTooLarge
	}
	return p, nil
}

func (l *Ledger) proofLink(m Member) [][]byte {
	link := [][]byte{l.admissions[m.AdmitID].Raw, l.byID[m.InviteID].Signed.Marshal()}
	if m.Kept {
		return append(link, []byte{}, l.byID[m.vouch].Signed.Marshal())
	}
	return append(link, l.acceptances[m.vouch].Signed.Marshal())
}

// VerifyProof checks every signature and every link of a proof that id was admitted, from genesis alone. Its errors
// are ErrTooLarge, ErrMalformed and ErrProof.
func VerifyProof(g *Genesis, proof []byte, id identity.PeerID) (*ProvenMember, error) {
	if len(proof) > MaxProof {
		return nil, ErrTooLarge
	}
	links, err := parseProof(proof)
	if err != nil {
		return nil, err
	}
	if len(links) == 0 {
		if id != g.Founder {
			return nil, ErrProof
		}
		return &ProvenMember{
			ID: id, WG: g.WG, Disco: g.Disco, Generation: g.Generation, Admitted: fromSeconds(g.Created),
		}, nil
	}
	chain := make([]*provenLink, len(links))
	expect := id
	for i, parts := range links {
		link, err := verifyLink(g, parts)
		if err != nil || link.admit.Node != expect || expect == g.Founder {
			return nil, ErrProof
		}
		chain[i], expect = link, link.voucher
	}
	effective := g.Created * 1000
	for _, link := range slices.Backward(chain) {
		if effective = link.effective(effective); !link.kept && link.terms.expired(effective) {
			return nil, ErrProof
		}
	}
	if expect != g.Founder {
		return nil, ErrProof
	}
	a := chain[0].admit
	return &ProvenMember{
		ID: id, WG: a.WG, Disco: a.Disco, Generation: a.Generation, Admitted: fromMillis(effective),
		AdmitID: a.ID, InviteID: a.Invite, Tags: chain[0].terms.Tags, Links: len(chain),
	}, nil
}

func parseProof(proof []byte) ([][][]byte, error) {
	var links [][][]byte
	if err := dcbor.Unmarshal(proof, &links); err != nil || links == nil || len(links) > maxProofLinks {
		return nil, ErrMalformed
	}
	for _, link := range links {
		if len(link) != 3 && (len(link) != 4 || len(link[2]) != 0) {
			return nil, ErrMalformed
		}
	}
	if !bytes.Equal(dcbor.Marshal(links), proof) {
		return nil, ErrMalformed
	}
	return links, nil
}

// provenLink is one link whose signatures hold.
type provenLink struct {
	admit   *Admit
	terms   *InviteTerms
	invited uint64 // when, unix milliseconds
	voucher identity.PeerID
	time    uint64
	kept    bool
}

func (p *provenLink) effective(voucher uint64) uint64 {
	if p.kept {
		return p.time
	}
	return max(p.time, p.invited, voucher)
}

func verifyLink(g *Genesis, parts [][]byte) (*provenLink, error) {
	a, err := ParseAdmit(parts[0], g.ID)
	if err != nil {
		return nil, err
	}
	signed, err := ParseSigned(parts[1])
	if err != nil {
		return nil, err
	}
	inv, terms, err := parseInvite(signed, g.ID)
	if err != nil {
		return nil, err
	}
	if inv.Author != g.Founder || inv.ID != a.Invite || a.VerifyInvite(terms.Key) != nil {
		return nil, ErrProof
	}
	link := &provenLink{admit: a, terms: terms, invited: inv.Time}
	if len(parts) == 4 {
		return link, link.verifyKeep(g, parts[3])
	}
	return link, link.verifyAcceptance(g, parts[2])
}

func (p *provenLink) verifyAcceptance(g *Genesis, raw []byte) error {
	signed, err := ParseSigned(raw)
	if err != nil {
		return err
	}
	x, err := ParseAcceptance(signed, g.ID)
	if err != nil {
		return err
	}
	if x.Admit != p.admit.ID {
		return ErrProof
	}
	p.voucher, p.time = x.Acceptor, x.Time
	return nil
}

func (p *provenLink) verifyKeep(g *Genesis, raw []byte) error {
	signed, err := ParseSigned(raw)
	if err != nil {
		return err
	}
	st, err := ParseStatement(signed, g.ID)
	if err != nil {
		return err
	}
	keep, ok := st.content.(*keeping)
	if !ok || st.Author != g.Founder {
		return ErrProof
	}
	i := slices.IndexFunc(keep.Entries, func(e keepEntry) bool { return e.Admit == p.admit.ID })
	if i < 0 {
		return ErrProof
	}
	p.voucher, p.time, p.kept = st.Author, keep.Entries[i].Time, true
	return nil
}
