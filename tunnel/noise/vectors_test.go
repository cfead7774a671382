package noise

import (
	"bytes"
	"crypto/ecdh"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/meshnet/meshnet/identity"
)

var update = flag.Bool("update", false, "write testdata/transcripts.json by the reference")

const transcripts = "testdata/transcripts.json"

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// transcript is a whole handshake: what it is made of, every state of its key schedule, what goes over the wire and
// what comes out.
type transcript struct {
	Name string

	InitiatorStatic, InitiatorEphemeral hexBytes // private keys
	ResponderStatic, ResponderEphemeral hexBytes
	PSK, Timestamp                      hexBytes
	InitiatorIndex, ResponderIndex      uint32
	ToResponder, ToInitiator            hexBytes // cookies the messages are made with; empty: none

	CookieSecret, CookieSource, CookieNonce hexBytes // of the responder, for its reply to the initiation

	InitiatorPublic, ResponderPublic hexBytes
	Schedule                         []noiseStep
	Initiation, Response             hexBytes
	InitiatorSends, ResponderSends   hexBytes
	Cookie, CookieReply              hexBytes
	Data                             hexBytes // the initiator's first data message: "ping" under counter 0
}

// inputs are made of nothing but the name.
func inputs(name string, psk bool, cookies bool) transcript {
	draw := func(what string, n int) hexBytes {
		sum := blake2s.Sum256([]byte(name + "/" + what))
		return sum[:n]
	}
	t := transcript{
		Name:               name,
		InitiatorStatic:    draw("initiator static", 32),
		InitiatorEphemeral: draw("initiator ephemeral", 32),
		ResponderStatic:    draw("responder static", 32),
		ResponderEphemeral: draw("responder ephemeral", 32),
		PSK:                make(hexBytes, 32),
		Timestamp:          draw("timestamp", 12),
		InitiatorIndex:     binary.LittleEndian.Uint32(draw("initiator index", 4)),
		ResponderIndex:     binary.LittleEndian.Uint32(draw("responder index", 4)),
		CookieSecret:       draw("cookie secret", 32),
		CookieSource:       []byte{192, 0, 2, 1, 0xca, 0x6c},
		CookieNonce:        draw("cookie nonce", 24),
	}
	if psk {
		t.PSK = draw("psk", 32)
	}
	if cookies {
		t.ToResponder, t.ToInitiator = draw("cookie to responder", 16), draw("cookie to initiator", 16)
	}
	return t
}

func private(t testing.TB, b []byte) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// run fills in what the reference computes; both sides of it have to agree.
func (v transcript) run(t *testing.T) transcript {
	t.Helper()
	si, sr := private(t, v.InitiatorStatic), private(t, v.ResponderStatic)
	v.InitiatorPublic, v.ResponderPublic = si.PublicKey().Bytes(), sr.PublicKey().Bytes()

	i := newNaive(true, si, v.ResponderPublic)
	i.e, i.psk = private(t, v.InitiatorEphemeral), v.PSK
	body, err := i.write(wordsOfInitiation, v.Timestamp)
	if err != nil {
		t.Fatal(err)
	}
	v.Initiation = naiveFrame(1, []uint32{v.InitiatorIndex}, body, v.ResponderPublic, v.ToResponder)

	r, timestamp, err := naiveOpen(sr, v.Initiation)
	if err != nil || !bytes.Equal(timestamp, v.Timestamp) || !bytes.Equal(r.rs, v.InitiatorPublic) {
		t.Fatalf("the reference does not read its own initiation: %v", err)
	}
	r.e, r.psk = private(t, v.ResponderEphemeral), v.PSK
	body, err = r.write(wordsOfResponse, nil)
	if err != nil {
		t.Fatal(err)
	}
	v.Response = naiveFrame(2, []uint32{v.ResponderIndex, v.InitiatorIndex}, body, v.InitiatorPublic, v.ToInitiator)
	if _, err := i.read(wordsOfResponse, v.Response[12:60]); err != nil {
		t.Fatalf("the reference does not read its own response: %v", err)
	}
	if !reflect.DeepEqual(i.steps, r.steps) {
		t.Fatal("the two sides of the reference went different ways")
	}
	v.Schedule = i.steps
	v.InitiatorSends, v.ResponderSends = i.keys()

	v.Cookie = naiveMAC(v.CookieSecret, v.CookieSource)
	x, _ := chacha20poly1305.NewX(naiveHash([]byte("cookie--"), v.ResponderPublic))
	v.CookieReply = binary.LittleEndian.AppendUint32([]byte{3, 0, 0, 0}, v.InitiatorIndex)
	v.CookieReply = append(v.CookieReply, v.CookieNonce...)
	v.CookieReply = x.Seal(v.CookieReply, v.CookieNonce, v.Cookie, v.Initiation[116:132])

	a, _ := chacha20poly1305.New(v.InitiatorSends)
	v.Data = binary.LittleEndian.AppendUint32([]byte{4, 0, 0, 0}, v.ResponderIndex)
	v.Data = append(v.Data, make([]byte, 8)...)
	v.Data = a.Seal(v.Data, make([]byte, 12), []byte("ping"), nil)
	return v
}

func vectors(t testing.TB) []transcript {
	t.Helper()
	text, err := os.ReadFile(transcripts)
	if err != nil {
		t.Fatal(err)
	}
	var all []transcript
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no transcripts")
	}
	return all
}

// The vectors in the file are what the reference says.
func TestReference(t *testing.T) {
	all := []transcript{
		inputs("without pre-shared key", false, false).run(t),
		inputs("pre-shared key", true, false).run(t),
		inputs("pre-shared key, under load", true, true).run(t),
	}
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile(transcripts, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(transcripts)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, text) {
		t.Error("the file is not what the reference writes")
	}
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}

func cookieOf(b []byte) *Cookie {
	if len(b) == 0 {
		return nil
	}
	c := Cookie(b)
	return &c
}

func statics(t testing.TB, v transcript) (initiator, responder *Static) {
	t.Helper()
	return static(t, identity.Secret(v.InitiatorStatic)), static(t, identity.Secret(v.ResponderStatic))
}

func static(t testing.TB, private identity.Secret) *Static {
	t.Helper()
	s, err := NewStatic(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func remote(t testing.TB, s *Static, key identity.WGKey) *Remote {
	t.Helper()
	r, err := s.Remote(key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func clamped(b []byte) scalar { return scalarOf([32]byte(b)) }

// Given the same random bytes, the package writes the vectors' messages and comes to their keys.
func TestTranscripts(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			si, sr := statics(t, v)
			publicI, publicR := si.Public(), sr.Public()
			same(t, "initiator's key", publicI[:], v.InitiatorPublic)
			same(t, "responder's key", publicR[:], v.ResponderPublic)

			var initiation [InitiationSize]byte
			i := &Initiation{local: si, index: v.InitiatorIndex, ephemeral: clamped(v.InitiatorEphemeral)}
			err := i.begin(remote(t, si, publicR), [12]byte(v.Timestamp), cookieOf(v.ToResponder), &initiation)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "initiation", initiation[:], v.Initiation)

			in, err := sr.Open(v.Initiation, func(k identity.WGKey) *Remote { return remote(t, sr, k) })
			if err != nil {
				t.Fatal(err)
			}
			same(t, "initiator's key, sent", in.Remote[:], v.InitiatorPublic)
			same(t, "timestamp", in.Timestamp[:], v.Timestamp)
			if in.Sender != v.InitiatorIndex {
				t.Errorf("sender %d, want %d", in.Sender, v.InitiatorIndex)
			}

			var response [ResponseSize]byte
			ephemeral, psk := clamped(v.ResponderEphemeral), identity.Secret(v.PSK)
			keysR, err := in.respond(ephemeral, v.ResponderIndex, &psk, cookieOf(v.ToInitiator), &response)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "response", response[:], v.Response)
			keysI, _, err := i.Finish(v.Response, []identity.Secret{psk})
			if err != nil {
				t.Fatal(err)
			}
			same(t, "initiator sends", keysI.Send[:], v.InitiatorSends)
			same(t, "initiator receives", keysI.Receive[:], v.ResponderSends)
			same(t, "responder sends", keysR.Send[:], v.ResponderSends)
			same(t, "responder receives", keysR.Receive[:], v.InitiatorSends)
			same(t, "data", seal(keysI, v.ResponderIndex, 0, []byte("ping")), v.Data)
		})
	}
}

// The states in between are the vectors' too.
func TestSchedule(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			si, sr := statics(t, v)
			ei, er := clamped(v.InitiatorEphemeral), clamped(v.ResponderEphemeral)
			var publicEI, publicER [32]byte
			ei.public(&publicEI)
			er.public(&publicER)
			psk := identity.Secret(v.PSK)

			s := begin(&sr.public)
			at := 2 // name and prologue are one with the responder's key
			check := func(word string) {
				t.Helper()
				want := v.Schedule[at]
				if word != want.Word {
					t.Fatalf("step %d is %s, want %s", at, word, want.Word)
				}
				same(t, word+": chaining key", s.chain[:], want.Chain)
				same(t, word+": hash", s.hash[:], want.Hash)
				at++
			}
			check("responder")
			s.mixPublic(publicEI[:])
			check("e")
			s.mixShared(sr.private, &publicEI)
			check("es")
			s.seal(make([]byte, 48), si.public[:])
			check("s")
			s.mixShared(si.private, &sr.public)
			check("ss")
			s.seal(make([]byte, 28), v.Timestamp)
			check("payload")
			s.mixPublic(publicER[:])
			check("e")
			s.mixShared(ei, &publicER)
			check("ee")
			s.mixShared(si.private, &publicER)
			check("se")
			s.mixPSK(&psk)
			check("psk")
			s.seal(make([]byte, 16), nil)
			check("payload")
			if at != len(v.Schedule) {
				t.Errorf("the vectors have %d steps, %d were done", len(v.Schedule), at)
			}
		})
	}
}

func TestCookieVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			si, sr := statics(t, v)
			c := NewChecker(sr)
			c.secret = [hashSize]byte(v.CookieSecret)
			var reply [CookieReplySize]byte
			copy(reply[cookieNonceAt:], v.CookieNonce)
			c.reply(v.Initiation, v.CookieSource, &reply)
			same(t, "reply", reply[:], v.CookieReply)
			cookie, err := remote(t, si, sr.Public()).OpenCookie(v.CookieReply, MAC1(v.Initiation))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "cookie", cookie[:], v.Cookie)
		})
	}
}

// seal is a data message.
func seal(k Keys, receiver uint32, counter uint64, plain []byte) []byte {
	msg := make([]byte, DataHeaderSize, DataHeaderSize+len(plain)+TagSize)
	PutDataHeader(msg, receiver, counter)
	nonce := Nonce(counter)
	aead, err := chacha20poly1305.New(k.Send[:])
	if err != nil {
		panic(err)
	}
	return aead.Seal(msg, nonce[:], plain, nil)
}

// unseal opens a data message.
func unseal(k Keys, msg []byte) ([]byte, error) {
	nonce := Nonce(Counter(msg))
	aead, err := chacha20poly1305.New(k.Receive[:])
	if err != nil {
		panic(err)
	}
	return aead.Open(nil, nonce[:], msg[DataHeaderSize:], nil)
}
