package magicsock

import (
	"encoding/binary"
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

// tagTable finds the peer that a tag names, for the hours around now and for every network key.
type tagTable struct {
	hour  int64
	built bool
	byTag map[disco.Tag][]tagged
}

type tagged struct {
	peer *peer
	keys pairKeys
	k    int // which of the peer's keys
}

func (t *tagTable) reset() { t.built = false }

// lookup returns who may have sent a packet under tag.
func (t *tagTable) lookup(now time.Time, c *core, tag disco.Tag) []tagged {
	hour := now.Add(c.skew).Unix() / 3600
	if !t.built || t.hour != hour {
		t.build(c, hour)
	}
	found := t.byTag[tag]
	for i := range found {
		if keys := c.pairKeys(found[i].peer); found[i].k < len(keys) {
			found[i].keys = keys[found[i].k]
		}
	}
	return found
}

// build computes the tags of all members for the hour before, this and the next. A clock that is further off reaches
// us by an Intro.
func (t *tagTable) build(c *core, hour int64) {
	t.hour, t.built, t.byTag = hour, true, make(map[disco.Tag][]tagged, 3*len(c.peers))
	for i, k := range c.secrets {
		for _, p := range c.peers {
			if !p.known || p.disco == (identity.DiscoKey{}) {
				continue
			}
			t.add(k, i, p, hour)
			if p.hours != 0 {
				t.add(k, i, p, hour+p.hours)
			}
		}
	}
}

// add enters a member's tags around an hour.
func (t *tagTable) add(k identity.Secret, i int, p *peer, hour int64) {
	for h := hour - 1; h <= hour+1; h++ {
		tag := disco.TagOf(k, p.id, h)
		if len(t.byTag[tag]) < maxTagTries {
			t.byTag[tag] = append(t.byTag[tag], tagged{peer: p, k: i})
		}
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
