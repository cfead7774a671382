package ring

import (
	"bytes"
	"crypto/ed25519"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

const (
	// MaxFrame is the largest frame, in bytes.
	MaxFrame = maxBody + 96
	// maxTTL is how many sessions a signal crosses.
	maxTTL = 20
)

// kind is the first field of every frame.
type kind uint64

const (
	kindSignal  kind = 1
	kindTaken   kind = 2
	kindNoRoute kind = 3
)

// way is which of a signal's two ways a frame belongs to. Each node carries a signal once by each.
type way uint64

const (
	wayBefore way = iota // to the nearest before the target, upwards
	wayAfter             // to the nearest after it, downwards
	ways
)

func (w way) other() way { return wayAfter - w }

// signalFrame carries a signal. Only body is signed: by its origin.
type signalFrame struct {
	Kind kind   `cbor:"0,keyasint"`
	Body []byte `cbor:"1,keyasint"`
	Sig  []byte `cbor:"2,keyasint"`
	TTL  uint64 `cbor:"3,keyasint"` // from 1 to maxTTL: sessions it may cross, this one included
	Way  way    `cbor:"4,keyasint"`
}

// answerFrame tells the neighbour that a signal came from what became of it.
type answerFrame struct {
	Kind   kind            `cbor:"0,keyasint"`
	ID     ID              `cbor:"1,keyasint"`
	Origin identity.PeerID `cbor:"2,keyasint"`
	Way    way             `cbor:"3,keyasint"`
}

func (f *signalFrame) encode() []byte { return dcbor.Marshal(f) }

func (f *answerFrame) encode() []byte { return dcbor.Marshal(f) }

// kindOf is the kind of what may be a frame: a map whose first key is 0 with a number below 24. 0: it is none.
func kindOf(data []byte) kind {
	if len(data) < 3 || len(data) > MaxFrame || data[0]>>5 != 5 || data[1] != 0 || data[2] > 23 {
		return 0
	}
	return kind(data[2])
}

// parseSignalFrame reads the frame of a signal and its body. Of data nothing is kept.
func parseSignalFrame(data []byte) (*signalFrame, *Signal, bool, error) {
	f := new(signalFrame)
	if err := strict(data, f); err != nil || len(f.Sig) != ed25519.SignatureSize || f.TTL < 1 || f.TTL > maxTTL || f.Way >= ways {
		return nil, nil, false, errMalformed
	}
	s, newer, err := parseBody(f.Body)
	return f, s, newer, err
}

func parseAnswerFrame(data []byte) (*answerFrame, error) {
	f := new(answerFrame)
	if err := strict(data, f); err != nil || f.Way >= ways {
		return nil, errMalformed
	}
	return f, nil
}

// strict decodes what is exactly as Marshal writes v. A frame is made anew by each hop, so it holds nothing but what
// every hop knows.
func strict(data []byte, v any) error {
	if err := dcbor.Unmarshal(data, v); err != nil || !bytes.Equal(dcbor.Marshal(v), data) {
		return errMalformed
	}
	return nil
}
