package shelf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"slices"
)

// Buckets is into how many parts a set is divided.
const Buckets = 256

// sumSize is how many bytes of a bucket's hash are told.
const sumSize = 8

// SumsSize is the length of Sums, in bytes.
const SumsSize = Buckets * sumSize

// Key names an entry.
type Key = [32]byte

// Entry is a key with the newest version known of it.
type Entry struct {
	Key     Key
	Version uint64
}

// Set is a set of entries. The zero value is empty. Not safe for concurrent use.
type Set struct {
	buckets [Buckets]bucket
	count   int
	root    [32]byte
	known   bool // root is right
}

type bucket struct {
	entries []Entry // by key
	sum     [32]byte
	known   bool // sum is right
}

// Len is the number of entries.
func (s *Set) Len() int { return s.count }

// Put notes a version of a key in place of the one before.
func (s *Set) Put(key Key, version uint64) {
	b := &s.buckets[key[0]]
	i, found := b.find(key)
	switch {
	case !found:
		b.entries = slices.Insert(b.entries, i, Entry{key, version})
		s.count++
	case b.entries[i].Version == version:
		return
	default:
		b.entries[i].Version = version
	}
	b.known, s.known = false, false
}

// Remove takes a key out.
func (s *Set) Remove(key Key) {
	b := &s.buckets[key[0]]
	if i, found := b.find(key); found {
		b.entries = slices.Delete(b.entries, i, i+1)
		s.count--
		b.known, s.known = false, false
	}
}

// Version is that of a key.
func (s *Set) Version(key Key) (version uint64, ok bool) {
	b := &s.buckets[key[0]]
	if i, found := b.find(key); found {
		return b.entries[i].Version, true
	}
	return 0, false
}

func (b *bucket) find(key Key) (int, bool) {
	return slices.BinarySearchFunc(b.entries, key, func(e Entry, k Key) int { return bytes.Compare(e.Key[:], k[:]) })
}

// hash is SHA-256 over its entries, each key ‖ version 8; zero when it is empty.
func (b *bucket) hash() [32]byte {
	if b.known {
		return b.sum
	}
	b.sum, b.known = [32]byte{}, true
	if len(b.entries) > 0 {
		all := make([]byte, 0, len(b.entries)*40)
		for _, e := range b.entries {
			all = append(all, e.Key[:]...)
			all = binary.BigEndian.AppendUint64(all, e.Version)
		}
		b.sum = sha256.Sum256(all)
	}
	return b.sum
}

// Root is the same for two sets exactly when their entries are: SHA-256 over all buckets' hashes.
func (s *Set) Root() [32]byte {
	if !s.known {
		all := make([]byte, 0, Buckets*32)
		for i := range s.buckets {
			sum := s.buckets[i].hash()
			all = append(all, sum[:]...)
		}
		s.root, s.known = sha256.Sum256(all), true
	}
	return s.root
}

// Sums are the first 8 bytes of each bucket's hash, in order.
func (s *Set) Sums() []byte {
	all := make([]byte, 0, SumsSize)
	for i := range s.buckets {
		sum := s.buckets[i].hash()
		all = append(all, sum[:sumSize]...)
	}
	return all
}

// Differing are the buckets whose sums are not those of another set. sums must have SumsSize bytes.
func (s *Set) Differing(sums []byte) Part {
	var p Part
	for i := range s.buckets {
		sum := s.buckets[i].hash()
		if !bytes.Equal(sum[:sumSize], sums[i*sumSize:(i+1)*sumSize]) {
			p.Add(byte(i))
		}
	}
	return p
}

// Part names some of the buckets, a bit for each. The zero value names none.
type Part [Buckets / 8]byte

// Whole names all.
func Whole() Part { return Part(bytes.Repeat([]byte{0xff}, Buckets/8)) }

// Add names a bucket.
func (p *Part) Add(bucket byte) { p[bucket/8] |= 1 << (bucket % 8) }

// Has reports whether a bucket is named.
func (p *Part) Has(bucket byte) bool { return p[bucket/8]&(1<<(bucket%8)) != 0 }

// Of are the entries of the named buckets, in order. The set must not change meanwhile.
func (s *Set) Of(p Part) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := range s.buckets {
			if !p.Has(byte(i)) {
				continue
			}
			for _, e := range s.buckets[i].entries {
				if !yield(e) {
					return
				}
			}
		}
	}
}
