package magicsock

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
)

// maxTagTries is how many peers of one tag are tried before a packet is given up.
const maxTagTries = 4

// kidOf names a network key by its commitment.
func kidOf(k identity.Secret) [4]byte {
	commit := identity.Commit(k)
	return [4]byte(commit[:4])
}

// pairKeys returns the keys with a peer, one set per network key, newest first. None for a peer without a disco key.
func (c *core) pairKeys(p *peer) []pairKeys {
	if p.keys != nil || p.disco == (identity.DiscoKey{}) {
		return p.keys
	}
	shared, err := c.self.DiscoShared(p.disco)
	if err != nil {
		return nil
	}
	me := c.self.ID()
	for _, k := range c.secrets {
		p.keys = append(p.keys, pairKeys{
			kid: kidOf(k), secret: k,
			seal: disco.NewKey(shared, k, c.network.ID, me, p.id),
			open: disco.NewKey(shared, k, c.network.ID, p.id, me),
		})
	}
	return p.keys
}

// ownTag is the tag that we send under: that of the hour, changed up to two minutes late so that not everybody
// changes at once.
func (c *core) ownTag(now time.Time, k identity.Secret) disco.Tag {
	me := c.self.ID()
	spread := time.Duration(binary.BigEndian.Uint64(me[:8])%120) * time.Second
	return disco.TagOf(k, me, now.Add(c.skew-spread).Unix()/3600)
}

// tagTable finds the members that a tag names, for the hours around now and for every network key: 16 bytes for each.
type tagTable struct {
	hour    int64
	built   bool
	entries []tagEntry // ordered by tag
}

// tagEntry is one tag of one member.
type tagEntry struct {
	tag    uint64
	member int32 // index in the network map
	key    int32 // which of the network keys
}

func (t *tagTable) reset() { t.built = false }

// lookup returns who may have sent a packet under tag.
func (t *tagTable) lookup(now time.Time, c *core, tag disco.Tag) []tagEntry {
	hour := now.Add(c.skew).Unix() / 3600
	if !t.built || t.hour != hour {
		t.build(c, hour)
	}
	want := binary.BigEndian.Uint64(tag[:])
	i, _ := slices.BinarySearchFunc(t.entries, want, func(e tagEntry, want uint64) int { return cmp.Compare(e.tag, want) })
	found := t.entries[i:min(i+maxTagTries, len(t.entries))]
	for j := range found {
		if found[j].tag != want {
			return found[:j]
		}
	}
	return found
}

// build computes the tags of all members for the hour before, this and the next. A clock that is further off reaches
// us by an Intro.
func (t *tagTable) build(c *core, hour int64) {
	t.hour, t.built = hour, true
	t.entries = slices.Grow(t.entries[:0], 3*len(c.secrets)*len(c.members.Peers))
	for key, k := range c.secrets {
		for i := range c.members.Peers {
			n := &c.members.Peers[i]
			if n.Disco == (identity.DiscoKey{}) {
				continue
			}
			t.add(k, key, i, n.ID, hour)
			if p := c.peers[n.ID]; p != nil && p.hours != 0 {
				t.add(k, key, i, n.ID, hour+p.hours)
			}
		}
	}
	slices.SortFunc(t.entries, func(a, b tagEntry) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.key, b.key), cmp.Compare(a.member, b.member))
	})
}

// add enters a member's tags around an hour.
func (t *tagTable) add(k identity.Secret, key, member int, id identity.PeerID, hour int64) {
	for h := hour - 1; h <= hour+1; h++ {
		tag := disco.TagOf(k, id, h)
		t.entries = append(t.entries, tagEntry{binary.BigEndian.Uint64(tag[:]), int32(member), int32(key)})
	}
}

// setHours notes that a member's clock is so far ahead of ours that its tags are those of other hours.
func (c *core) setHours(p *peer, ahead time.Duration) {
	hours := int64((ahead - c.skew).Round(time.Hour) / time.Hour)
	if p.hours != hours {
		p.hours = hours
		c.tags.reset()
	}
}
