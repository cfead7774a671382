package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"github.com/meshnet/meshnet/identity"
)

// reserved4 is the size of a /24: the first and the last of the prefix belong to services and to nobody.
const reserved4 = 256

// usable4 tells whether a member may have the address.
func usable4(prefix netip.Prefix, addr netip.Addr) bool {
	if !addr.Is4() || !prefix.Contains(addr) {
		return false
	}
	host := number4(addr) - number4(prefix.Addr())
	return host >= reserved4 && host < size4(prefix)-reserved4
}

func size4(prefix netip.Prefix) uint32 { return 1 << (32 - prefix.Bits()) }

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// choice4 is h(id, n), the n-th address that a member would take.
func choice4(prefix netip.Prefix, id identity.PeerID, n uint32) netip.Addr {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(append([]byte("meshnet/address4/v1\x00"), id[:]...), n))
	room := uint64(size4(prefix) - 2*reserved4)
	host := uint32(binary.BigEndian.Uint64(sum[:8])%room) + reserved4
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, number4(prefix.Addr())+host)))
}

// lease is the last word on one member's address. A higher rank was stated later.
type lease struct {
	addr netip.Addr // zero: none any more
	rank int
}

// assign4 gives each member, in order, its lease or its first free choice. A lease holds also for who is no member
// yet.
func assign4(prefix netip.Prefix, order []Member, leases map[identity.PeerID]lease) {
	owner := leased4(prefix, leases)
	used := make(map[netip.Addr]bool, len(owner)+len(order))
	for addr := range owner {
		used[addr] = true
	}
	room := int(size4(prefix) - 2*reserved4)
	for i := range order {
		m := &order[i]
		if addr := leases[m.ID].addr; addr.IsValid() && owner[addr] == m.ID {
			m.IP4 = addr
			continue
		}
		for n := uint32(0); len(used) < room; n++ {
			if addr := choice4(prefix, m.ID, n); !used[addr] {
				m.IP4, used[addr] = addr, true
				break
			}
		}
	}
}

// leased4 is whose each leased address is. Of two leases of one address the later counts.
func leased4(prefix netip.Prefix, leases map[identity.PeerID]lease) map[netip.Addr]identity.PeerID {
	owner := make(map[netip.Addr]identity.PeerID, len(leases))
	for id, l := range leases {
		if !usable4(prefix, l.addr) {
			continue
		}
		if other, taken := owner[l.addr]; !taken || leases[other].rank < l.rank {
			owner[l.addr] = id
		}
	}
	return owner
}
