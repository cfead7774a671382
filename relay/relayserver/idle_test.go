package relayserver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// idleServer is set for the process that is the server of BenchmarkBarIdleClients.
const idleServer = "MESHNET_TEST_IDLE_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(idleServer) != "" {
		if err := serveIdle(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveIdle runs a whole relay. It writes its URL, then for every line of input the memory in use, in bytes: resident,
// and of heap and stacks.
func serveIdle(in io.Reader, out io.Writer) error {
	front, err := relayserver.Listen(relayserver.FrontConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	server := relayserver.New(relayserver.Config{Idle: time.Hour, STUNPort: front.STUNPort()})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { front.Run(ctx, server) })
	fmt.Fprintln(out, front.URL())
	for lines := bufio.NewScanner(in); lines.Scan(); {
		for range 4 { // each halves the stacks that a handshake made grow
			runtime.GC()
		}
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintln(out, resident(), m.HeapInuse+m.StackInuse, server.Stats().Live)
	}
	return nil
}

// resident is the resident set of this process; 0 where the system does not tell.
func resident() uint64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages uint64
	fmt.Sscan(string(data), &size, &pages)
	return pages * uint64(os.Getpagesize())
}

// BenchmarkBarIdleClients has ten thousand clients behind TLS and HTTP that say nothing, and tells what one costs the
// server, which is another process: its memory is measured alone, and neither has all the descriptors.
func BenchmarkBarIdleClients(b *testing.B) {
	const count = 10_000
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), idleServer+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	answers := bufio.NewReader(out)
	line, err := answers.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	url, err := relay.ParseURL(strings.TrimSpace(line))
	if err != nil {
		b.Fatal(err)
	}
	measure := func() (rss, goMem, live uint64) {
		fmt.Fprintln(in)
		if _, err := fmt.Fscanln(answers, &rss, &goMem, &live); err != nil {
			b.Fatal(err)
		}
		return rss, goMem, live
	}
	rss0, mem0, _ := measure()
	streams := connectIdle(b, url, count)
	defer func() {
		for _, s := range streams {
			s.Close()
		}
	}()
	for b.Loop() {
		rss, mem, live := measure()
		if live != count {
			b.Fatalf("%d clients are connected, want %d", live, count)
		}
		b.ReportMetric(float64(rss-rss0)/count/1024, "KB-resident/client")
		b.ReportMetric(float64(mem-mem0)/count/1024, "KB-heap+stack/client")
	}
}

// connectIdle connects clients, which keep nothing but their streams.
func connectIdle(b *testing.B, url relay.URL, count int) []relay.Stream {
	b.Helper()
	streams := make([]relay.Stream, count)
	key := make([]*identity.Identity, count)
	for i := range key {
		key[i] = identity.New()
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(count); i = next.Add(1) - 1 {
				stream, err := relay.Dial(context.Background(), url, relay.DialConfig{})
				if err == nil {
					err = introduce(stream, key[i])
				}
				if err != nil {
					b.Error(err)
					return
				}
				streams[i] = stream
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return streams
}

// introduce does a client's handshake with little memory.
func introduce(stream relay.Stream, key *identity.Identity) error {
	reader := relay.NewReader(stream, make([]byte, 256), relay.MaxHello)
	hello := relay.ClientHello{Version: relay.Version, Node: key.ID()}
	copy(hello.Signature[:], key.Sign(identity.PurposeRelayTLS, identity.NetworkID{}, stream.Exporter))
	if _, err := stream.Write(relay.AppendFrame(nil, relay.TypeClientHello, hello.Append(nil))); err != nil {
		return err
	}
	for _, want := range []relay.Type{relay.TypeServerHello, relay.TypeWelcome} {
		f, ok := reader.Next()
		for ; !ok; f, ok = reader.Next() {
			if _, err := reader.Fill(); err != nil {
				return err
			}
		}
		if f.Type != want {
			return fmt.Errorf("frame of type %#x, want %#x", f.Type, want)
		}
	}
	return nil
}
