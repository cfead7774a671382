package dht

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/meshnet/meshnet/identity"
)

const (
	// MaxData is how long a record's data may be, in bytes.
	MaxData = 512

	plainSize    = 896
	sealedSize   = chacha20poly1305.NonceSizeX + plainSize + chacha20poly1305.Overhead
	valueVersion = 1
	valueHead    = 2
	recordHead   = 8 + 8 + 2
	// ahead is by how much a record's time may be in the future and the record still count as new.
	ahead = 15 * time.Minute
)

var (
	// ErrTooLong is returned for data above MaxData, or none.
	ErrTooLong = errors.New("record does not fit into a DHT value")

	errBadValue = errors.New("DHT value is malformed")
	errSeal     = errors.New("DHT value is not sealed for its location")
)

// valuePrefix begins the bencoded form of every value.
var valuePrefix = []byte(strconv.Itoa(sealedSize) + ":")

// Key names the writer of a record to those who know its PeerID.
type Key [8]byte

// KeyOf is the key of a member's records.
func KeyOf(id identity.PeerID) Key {
	sum := sha256.Sum256(id[:])
	return Key(sum[:8])
}

// Record is what one member left at a location. Nothing in it is proven: Data has to be signed by its author.
type Record struct {
	Key  Key
	At   time.Time // when it was written, in whole seconds, by the writer's clock
	Data []byte    // opaque, 1 to MaxData bytes
}

func (r Record) size() int { return recordHead + len(r.Data) }

// compareRecords is the order within a value.
func compareRecords(a, b Record) int {
	return cmp.Or(b.At.Compare(a.At), bytes.Compare(a.Key[:], b.Key[:]))
}

// union is every key's newest record, in the order of a value.
func union(sets ...[]Record) []Record {
	newest := make(map[Key]Record)
	for _, set := range sets {
		for _, r := range set {
			if old, ok := newest[r.Key]; !ok || r.At.After(old.At) {
				newest[r.Key] = r
			}
		}
	}
	all := make([]Record, 0, len(newest))
	for _, r := range newest {
		all = append(all, r)
	}
	slices.SortFunc(all, compareRecords)
	return all
}

// merge is what a writer leaves at a location where it saw there: its own record, and of others' those that fit, the
// newest first. What is older than two slots goes, and what claims to be from the future comes last.
func merge(own Record, there []Record, now time.Time) []Record {
	var rest []Record
	for _, r := range union(there) {
		if r.Key != own.Key && now.Sub(r.At) <= 2*slotLength {
			rest = append(rest, r)
		}
	}
	early := func(r Record) int {
		if r.At.Sub(now) > ahead {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(rest, func(a, b Record) int { return cmp.Compare(early(a), early(b)) })
	kept, size := []Record{own}, valueHead+own.size()
	for _, r := range rest {
		if size+r.size() <= plainSize {
			kept = append(kept, r)
			size += r.size()
		}
	}
	slices.SortFunc(kept, compareRecords)
	return kept
}

// fits reports whether one more record of size bytes would not push out another.
func fits(there []Record, size int) bool {
	used := valueHead
	for _, r := range there {
		used += r.size()
	}
	return used+size <= plainSize
}

// appendPlain encodes records, which are in order and fit.
func appendPlain(b []byte, records []Record) []byte {
	start := len(b)
	b = append(b, valueVersion, byte(len(records)))
	for _, r := range records {
		b = append(b, r.Key[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(r.At.Unix()))
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.Data)))
		b = append(b, r.Data...)
	}
	return append(b, make([]byte, plainSize-(len(b)-start))...)
}

// parsePlain reads what appendPlain writes, and nothing else.
func parsePlain(b []byte) ([]Record, error) {
	if len(b) != plainSize || b[0] != valueVersion {
		return nil, errBadValue
	}
	records := make([]Record, 0, min(int(b[1]), plainSize/recordHead))
	keys := make(map[Key]bool)
	rest := b[valueHead:]
	for range b[1] {
		if len(rest) < recordHead {
			return nil, errBadValue
		}
		seconds, length := binary.BigEndian.Uint64(rest[8:]), int(binary.BigEndian.Uint16(rest[16:]))
		r := Record{Key: Key(rest[:8]), At: time.Unix(int64(seconds), 0)}
		rest = rest[recordHead:]
		if seconds > 1<<40 || length == 0 || length > MaxData || length > len(rest) || keys[r.Key] {
			return nil, errBadValue
		}
		r.Data, rest = bytes.Clone(rest[:length]), rest[length:]
		if n := len(records); n > 0 && compareRecords(records[n-1], r) >= 0 {
			return nil, errBadValue
		}
		keys[r.Key] = true
		records = append(records, r)
	}
	for _, pad := range rest {
		if pad != 0 {
			return nil, errBadValue
		}
	}
	return records, nil
}

// sealValue is the string that a location holds for records, without its bencode prefix.
func (l *location) sealValue(records []Record) []byte {
	out := make([]byte, chacha20poly1305.NonceSizeX, sealedSize)
	rand.Read(out)
	return l.seal.Seal(out, out, appendPlain(nil, records), nil)
}

// openValue reads a bencoded value that was found at the location.
func (l *location) openValue(v []byte) ([]Record, error) {
	sealed, ok := bytes.CutPrefix(v, valuePrefix)
	if !ok || len(sealed) != sealedSize {
		return nil, errBadValue
	}
	nonce := sealed[:chacha20poly1305.NonceSizeX]
	plain, err := l.seal.Open(nil, nonce, sealed[len(nonce):], nil)
	if err != nil {
		return nil, errSeal
	}
	return parsePlain(plain)
}
