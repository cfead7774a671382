package udp

import (
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// zoneLifetime bounds how long a renamed or renumbered link keeps its old entry.
const zoneLifetime = 10 * time.Second

// zones maps link numbers to names and back, for the zones of link-local addresses. Lookups take a snapshot; whoever
// finds it old replaces it, which is the only place that allocates. Safe for concurrent use.
type zones struct {
	table atomic.Pointer[zoneTable]
}

// zoneTable is immutable.
type zoneTable struct {
	name  map[uint32]string
	index map[string]uint32
	made  time.Time
}

func (z *zones) current(now time.Time) *zoneTable {
	t := z.table.Load()
	if t == nil || now.Sub(t.made) > zoneLifetime {
		t = newZoneTable(now)
		z.table.Store(t)
	}
	return t
}

func newZoneTable(now time.Time) *zoneTable {
	t := &zoneTable{name: map[uint32]string{}, index: map[string]uint32{}, made: now}
	links, err := net.Interfaces()
	if err != nil {
		return t // numbers still work, and the next look is soon
	}
	for _, l := range links {
		t.name[uint32(l.Index)] = l.Name
		t.index[l.Name] = uint32(l.Index)
	}
	return t
}

// zone is the name of link index, or its number where it has none.
func (z *zones) zone(index uint32) string {
	if index == 0 {
		return ""
	}
	if name, ok := z.current(time.Now()).name[index]; ok {
		return name
	}
	return strconv.FormatUint(uint64(index), 10)
}

// scope is the number of the link that zone names; 0 when there is none.
func (z *zones) scope(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if index, ok := z.current(time.Now()).index[zone]; ok {
		return index
	}
	n, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
