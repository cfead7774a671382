package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

// A proxy that people run, with and without its password.
func TestTinyproxy(t *testing.T) {
	bin, err := exec.LookPath("tinyproxy")
	netlab.Need(t, err == nil, "the program tinyproxy is not installed")
	a := newAuthority(t)
	cert := a.leaf(t, time.Now().Add(time.Hour), "localhost", "127.0.0.1")
	for name, handler := range map[string]http.HandlerFunc{"upgrade": upgrading, "websocket": webSocketOnly} {
		t.Run(name, func(t *testing.T) {
			port := web(t, &tls.Config{Certificates: []tls.Certificate{cert}}, handler)
			proxy := startTinyproxy(t, bin, port)
			u := URL{Host: "localhost", Port: port}
			dial := func(user *url.Userinfo) (Stream, error) {
				through := &url.URL{Scheme: "http", User: user, Host: proxy}
				return Dial(t.Context(), u, DialConfig{
					Roots: a.roots,
					Proxy: func(*url.URL) (*url.URL, error) { return through, nil },
				})
			}
			s, err := dial(url.UserPassword("relay", "secret"))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			tryStream(t, s)
			if got := s.RemoteAddr().String(); got != proxy {
				t.Errorf("connected to %s, want the proxy %s", got, proxy)
			}
			if _, err := dial(nil); err == nil || !strings.Contains(err.Error(), "wants a user") {
				t.Errorf("without the password: %v", err)
			}
			if _, err := dial(url.UserPassword("relay", "guess")); err == nil {
				t.Error("a wrong password did as well")
			}
			u.Port = 1
			if _, err := dial(url.UserPassword("relay", "secret")); err == nil || !strings.Contains(err.Error(), "403") {
				t.Errorf("a port that the proxy does not allow: %v", err)
			}
		})
	}
}

// startTinyproxy runs it for one port of this host, until the test ends, and returns its address.
func startTinyproxy(t *testing.T, bin string, port uint16) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr)
	ln.Close()
	dir := t.TempDir()
	conf := filepath.Join(dir, "tinyproxy.conf")
	text := fmt.Sprintf("Port %d\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\nConnectPort %d\nBasicAuth relay secret\n"+
		"LogFile %q\nPidFile %q\n", addr.Port, port, filepath.Join(dir, "log"), filepath.Join(dir, "pid"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, "-d", "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", addr.String(), time.Second)
		if err == nil {
			conn.Close()
			return addr.String()
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("tinyproxy does not listen: %v\n%s", err, log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// The environment is read once in a process, so each case has one of its own.
func TestProxyOfEnvironment(t *testing.T) {
	const target = "MESHNET_TEST_RELAY"
	if text := os.Getenv(target); text != "" {
		u, err := ParseURL(text)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = Dial(ctx, u, DialConfig{})
		fmt.Println("dialled:", err)
		return
	}
	for _, tt := range []struct {
		name, noProxy string
		proxied       bool
	}{
		{"proxied", "", true},
		{"excluded", "relay.invalid", false},
		{"another is excluded", "example.com", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &testProxy{}
			cmd := exec.Command(os.Args[0], "-test.run=^TestProxyOfEnvironment$", "-test.count=1")
			cmd.Env = append(os.Environ(), target+"=https://relay.invalid:9000", "NO_PROXY="+tt.noProxy, "no_proxy="+tt.noProxy,
				fmt.Sprintf("HTTPS_PROXY=http://127.0.0.1:%d", plainWeb(t, p)), "https_proxy=")
			out, err := cmd.CombinedOutput()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				t.Fatalf("%v\n%s", exit, out)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if proxied := len(p.seen) == 1 && p.seen[0] == "CONNECT relay.invalid:9000"; proxied != tt.proxied {
				t.Errorf("the proxy was asked for %q\n%s", p.seen, out)
			}
		})
	}
}
