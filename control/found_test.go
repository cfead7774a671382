package control

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/netmap"
)

// TestOwnReach cuts a reach to a size; it stays signed.
func TestOwnReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.founder.start()
		defer w.stopAll()
		m := w.founder.mesh
		if got := m.OwnReach(512); got != nil {
			t.Errorf("there is something to tell: %d bytes", len(got))
		}
		x := Reachability{Homes: []netmap.Home{{Relay: relayURL}}}
		for i := range 12 {
			x.Endpoints = append(x.Endpoints, netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)}), 41820))
		}
		m.SetReach(x)
		all := m.OwnReach(1 << 10)
		short := m.OwnReach(300)
		if len(short) > 300 || len(short) >= len(all) {
			t.Fatalf("%d and %d bytes", len(all), len(short))
		}
		where, err := ReadReach(short, m.network.ID)
		if err != nil || where.Node != w.founder.id.ID() || len(where.Relays) != 1 ||
			len(where.Addrs) == 0 || where.Addrs[0] != x.Endpoints[0] {
			t.Errorf("%+v, %v", where, err)
		}
		if got := m.OwnReach(20); got != nil {
			t.Errorf("%d bytes within 20", len(got))
		}
		if _, err := ReadReach(short, identity.NetworkID{9}); err == nil {
			t.Error("it is of every network")
		}
	})
}

// TestTakeReach takes what members left of themselves, and nothing else.
func TestTakeReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.udpBlocked = true
		other := w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		m, id := w.founder.mesh, other.id.ID()
		reach := func(who *identity.Identity, seq uint64, addrs ...string) []byte {
			r := &Reach{Node: who.ID(), Seq: seq}
			for _, a := range addrs {
				r.Endpoints = append(r.Endpoints, encodeEndpoint(netip.MustParseAddrPort(a)))
			}
			return r.sign(who, m.network.ID).signed
		}
		seq := uint64(m.MeshTime().Add(time.Minute).UnixMilli())
		fresh := reach(other.id, seq, "192.0.2.77:5", "127.0.0.1:5", "[fe80::1]:5")
		if m.InSession(fresh) {
			t.Error("it says what is not known yet")
		}
		where, ok := m.TakeReach(fresh)
		if !ok || where.Node != id || len(where.Addrs) != 1 || where.Addrs[0].Port() != 5 {
			t.Fatalf("%+v, %v", where, ok)
		}
		// The member itself hears of it in a moment, and says something newer; until then nothing else happens.
		if !m.InSession(fresh) {
			t.Error("it is not what the member says")
		}
		if _, ok := m.TakeReach(reach(other.id, seq-1, "192.0.2.78:5")); !ok || !m.InSession(fresh) {
			t.Error("an older one took its place, or is of no use")
		}
		known := func(who *identity.Identity) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.reaches[who.ID()] != nil
		}
		stranger := identity.FromSeed(identity.Secret{77})
		if where, ok := m.TakeReach(reach(stranger, 1, "192.0.2.79:5")); !ok || where.Node != stranger.ID() || known(stranger) {
			t.Error("a member that is not known yet is to be asked, and not to be remembered")
		}
		forged := bytes.Clone(fresh)
		forged[len(forged)-1] ^= 1
		for name, raw := range map[string][]byte{"forged": forged, "own": m.OwnReach(1 << 10), "nothing": nil, "noise": []byte("noise")} {
			if _, ok := m.TakeReach(raw); ok || m.InSession(raw) {
				t.Errorf("%s was taken", name)
			}
		}
		if err := m.RevokeMember(id, false); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.TakeReach(reach(other.id, seq+1, "192.0.2.77:5")); ok {
			t.Error("a revoked node's was taken")
		}
	})
}

// TestInvitePSKs are those of open invites, the newest first.
func TestInvitePSKs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.founder.start()
		defer w.stopAll()
		m := w.founder.mesh
		var tokens []ledger.Token
		for _, life := range []time.Duration{time.Hour, time.Minute, time.Hour} {
			token, err := m.NewInvite(nil, life, 1)
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, token)
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		if got := m.InvitePSKs(9); len(got) != 2 || got[0] != tokens[2].PSK || got[1] != tokens[0].PSK {
			t.Errorf("%d secrets, or others, or in another order", len(got))
		}
		if got := m.InvitePSKs(1); len(got) != 1 || got[0] != tokens[2].PSK {
			t.Error("not the newest one")
		}
	})
}

// TestJoinByFound: the token leads to nobody. Who is found among many is asked, though others are found all the time.
func TestJoinByFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.startAll()
		defer w.stopAll()
		token, err := w.founder.mesh.NewInvite(nil, time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		token.Hints = nil
		found := make(chan datagram.Place)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 41820)
				if i == 100 {
					a = w.founder.underlay()
				}
				select {
				case found <- datagram.Place{Addr: a}:
				case <-ctx.Done():
				}
			}
		}()
		asked := make(map[string]bool)
		in := Entrance{
			Identity: identity.FromSeed(identity.Secret{8, 1}), Token: token, Found: found, Refused: func(string) {},
			Send: func(to datagram.Place, _ []byte) {
				if asked[to.String()] = true; to.Addr == w.founder.underlay() {
					cancel()
				}
			},
		}
		if err := Enter(ctx, in); err == nil || !asked[w.founder.underlay().String()] || len(asked) < 50 {
			t.Errorf("asked %d places: %v", len(asked), err)
		}
	})
}
