package dht

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	mainline "github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"
	"go.uber.org/goleak"
	"golang.org/x/time/rate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a private DHT on loopback addresses, one per node: every one of them knows every other.
type world struct {
	servers []*mainline.Server
	stores  []*bep44.Memory
	addrs   []netip.AddrPort
	count   byte // of our nodes
}

// newWorld makes a DHT of n nodes of the library. hook, if not nil, gets a node's queries first.
func newWorld(t *testing.T, n int, hook func(i int, w *world, conn net.PacketConn) func(*krpc.Msg, net.Addr) bool) *world {
	t.Helper()
	var ips []netip.Addr
	for i := range n {
		ips = append(ips, netip.AddrFrom4([4]byte{127, 7, 1, byte(i + 1)}))
	}
	return newWorldAt(t, ips, hook)
}

// newWorldAt is newWorld at given addresses.
func newWorldAt(
	t *testing.T, ips []netip.Addr, hook func(i int, w *world, conn net.PacketConn) func(*krpc.Msg, net.Addr) bool,
) *world {
	t.Helper()
	w := new(world)
	for i, ip := range ips {
		conn := listen(t, ip)
		w.stores = append(w.stores, bep44.NewMemory())
		cfg := &mainline.ServerConfig{
			Conn: conn, NoSecurity: true, Logger: silent(), Store: w.stores[i], Exp: time.Hour,
			SendLimiter: rate.NewLimiter(rate.Inf, 1),
		}
		if hook != nil {
			cfg.OnQuery = hook(i, w, conn)
		}
		server, err := mainline.NewServer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		w.servers = append(w.servers, server)
		w.addrs = append(w.addrs, conn.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	var wg sync.WaitGroup
	for i, server := range w.servers {
		wg.Go(func() {
			for j, to := range w.addrs {
				if i != j {
					res := server.PingQueryInput(net.UDPAddrFromAddrPort(to), mainline.QueryInput{NumTries: 3})
					if res.Err != nil {
						t.Errorf("node %d did not answer node %d: %v", j, i, res.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	return w
}

func listen(t *testing.T, ip netip.Addr) net.PacketConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// node runs one of ours, which begins at the first node of the world unless cfg says otherwise.
func (w *world) node(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, _ := w.nodeAnd(t, cfg)
	return n
}

// nodeAnd is node, and a func that ends it.
func (w *world) nodeAnd(t *testing.T, cfg Config) (n *Node, end func()) {
	t.Helper()
	w.count++
	ip := netip.AddrFrom4([4]byte{127, 7, 2, w.count})
	if cfg.Open == nil {
		cfg.Open = func() (net.PacketConn, error) {
			return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
		}
	}
	if cfg.Bootstrap == nil {
		cfg.Bootstrap = []string{w.addrs[0].String()}
	}
	n = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(end)
	eventually(t, func() bool { return n.Addr().IsValid() })
	return n, end
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(limit) {
			t.Fatal("did not happen within 10 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func mustPublish(t *testing.T, n *Node, id byte, data string) {
	t.Helper()
	if err := n.Publish(t.Context(), secretOf(1), idOf(id), []byte(data), testTime); err != nil {
		t.Fatalf("publish %s: %v", data, err)
	}
}

// lookup is the found records' data by writer.
func lookup(t *testing.T, n *Node, now time.Time) map[Key]string {
	t.Helper()
	records, err := n.Lookup(t.Context(), secretOf(1), now)
	if err != nil {
		t.Fatalf("lookup: %v", err)
	}
	got := make(map[Key]string)
	for _, r := range records {
		got[r.Key] = string(r.Data)
	}
	return got
}

// together are ids that write at the same location as id 1, beginning with it.
func together(count int) []byte {
	var ids []byte
	for b := byte(1); len(ids) < count; b++ {
		if indexOf(idOf(b), slotAt(testTime)) == indexOf(idOf(1), slotAt(testTime)) {
			ids = append(ids, b)
		}
	}
	return ids
}

// insert writes any bencodable value at a location, signed, as an insider can.
func insert(t *testing.T, n *Node, at *location, seq int64, v any) {
	t.Helper()
	search, _, err := n.get(t.Context(), n.running(), at, nil)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := bencode.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range search.holders() {
		args := krpc.MsgArgs{V: v, K: at.public, Salt: at.salt, Seq: &seq, Token: c.token}
		copy(args.Sig[:], bep44.Sign(at.key, at.salt, seq, encoded))
		if _, err := n.ask(t.Context(), n.running(), c.addr, "put", args); err != nil {
			t.Fatal(err)
		}
	}
}

// liars has a fifth of the nodes lie about items: some say nothing, some rubbish, some give forged values and invented
// nodes.
func liars(i int, w *world, conn net.PacketConn) func(*krpc.Msg, net.Addr) bool {
	if i%5 != 3 {
		return nil
	}
	return func(q *krpc.Msg, from net.Addr) bool {
		if q.Q != "get" && q.Q != "put" {
			return true
		}
		switch i / 5 % 3 {
		case 0:
		case 1:
			rubbish := make([]byte, 300)
			rand.Read(rubbish)
			conn.WriteTo(append([]byte("d1:t"), rubbish...), from)
		case 2:
			conn.WriteTo(w.forged(i, q), from)
		}
		return false
	}
}

// forged is an answer of node i with a value that nobody signed and nodes near the target that do not exist.
func (w *world) forged(i int, q *krpc.Msg) []byte {
	seq, token := int64(1<<40), "t"
	r := krpc.Return{ID: w.servers[i].ID(), Token: &token}
	r.V, _ = bencode.Marshal(make([]byte, sealedSize))
	r.Seq = &seq
	if at := locationOf(secretOf(1), slotAt(testTime), 0); q.A.Target == krpc.ID(at.target) {
		r.K = at.public
	}
	for port := range 8 {
		id := q.A.Target
		id[19] ^= byte(port)
		r.Nodes = append(r.Nodes, krpc.NodeInfo{ID: id, Addr: krpc.NodeAddr{IP: net.IPv4(127, 7, 3, byte(port)), Port: 1000 + port}})
	}
	return bencode.MustMarshal(krpc.Msg{T: q.T, Y: "r", R: &r})
}

func names(n int) string { return fmt.Sprintf("member %d", n) }
