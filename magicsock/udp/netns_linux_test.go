package udp

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// freshNamespace gives the test a network of its own whose loopback has the MTU. The thread dies with the test.
func freshNamespace(t *testing.T, mtu uint32) {
	t.Helper()
	unable := t.Skip
	if os.Getenv("MESHNET_CI") == "1" {
		unable = t.Fatal
	}
	if os.Getuid() != 0 {
		unable("needs root for a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		unable("no network namespace: ", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	req, _ := unix.NewIfreq("lo")
	req.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, req); err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		t.Fatal(err)
	}
}

// A train of segments that the link does not take is refused with errors that also mean "no offload": the offload
// must survive it, and what fits must arrive.
func TestTooLargeTrainKeepsOffload(t *testing.T) {
	freshNamespace(t, 1500)
	for _, f := range families {
		a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
		to := netip.AddrPortFrom(f.loopback, b.Port())
		pkts := datagrams(1480, 1480, 1480, 30, 1400, 1400)
		if err := a.Write(to, Source{}, pkts); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("%s: err = %v", f.network, err)
		}
		got, _ := receive(t, b, 3, 8)
		same(t, got, pkts[3:])
		if c := a.Counters(); !c.GSO || c.TxTooLarge != 3 {
			t.Errorf("%s: counters %+v", f.network, c)
		}
		if err := a.SetDontFragment(false); err != nil {
			t.Fatal(err)
		}
		if err := a.Write(to, Source{}, pkts); err != nil {
			t.Fatalf("%s: fragments: %v", f.network, err)
		}
		got, _ = receive(t, b, len(pkts), 8)
		same(t, got, pkts)
		if c := a.Counters(); !c.GSO {
			t.Errorf("%s: fragments cost the offload", f.network)
		}
	}
}
