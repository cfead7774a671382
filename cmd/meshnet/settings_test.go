package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/meshnet/meshnet"
)

// config writes a file of settings.
func (r *rig) config(text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, "c.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	for _, tt := range []struct {
		name, args, file string
		env              map[string]string
		port             uint16
		fixed            bool
		bootstrap        []string
	}{
		{name: "default", port: 41820},
		{name: "file", file: "port = 1\nbootstrap = ['a:1', 'b:2']", port: 1, fixed: true, bootstrap: []string{"a:1", "b:2"}},
		{name: "file, one value for a list", file: "bootstrap = 'a:1,b:2'", port: 41820, bootstrap: []string{"a:1", "b:2"}},
		{
			name: "environment over file", file: "port = 1\nbootstrap = ['a:1']",
			env:  map[string]string{"MESHNET_PORT": "2", "MESHNET_BOOTSTRAP": "c:3,d:4"},
			port: 2, fixed: true, bootstrap: []string{"c:3", "d:4"},
		},
		{
			name: "flag over both", file: "port = 1\nbootstrap = ['a:1']", args: "--port 3 --bootstrap e:5 --bootstrap f:6",
			env:  map[string]string{"MESHNET_PORT": "2", "MESHNET_BOOTSTRAP": "c:3"},
			port: 3, fixed: true, bootstrap: []string{"e:5", "f:6"},
		},
		{name: "empty variable is none", file: "port = 1", env: map[string]string{"MESHNET_PORT": ""}, port: 1, fixed: true},
		{name: "given as the default", args: "--port 41820", port: 41820, fixed: true},
		{name: "settings of other commands", file: "uses = 3\npeers = true\nport = 1", port: 1, fixed: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, byVariable := range []bool{false, true} {
				r := newRig(t)
				args := append([]string{"up"}, strings.Fields(tt.args)...)
				for k, v := range tt.env {
					r.env[k] = v
				}
				switch path := r.config(tt.file); {
				case tt.file == "":
				case byVariable:
					r.env["MESHNET_CONFIG"] = path
				default:
					args = append(args, "--config", path)
				}
				r.signals <- os.Interrupt // ends it once it is up
				r.want(r.run(args...), exitDone)
				if c := r.cfg; c.Port != tt.port || c.PortFixed != tt.fixed || !slices.Equal(c.Bootstrap, tt.bootstrap) {
					t.Errorf("port %d fixed %v bootstrap %v", c.Port, c.PortFixed, c.Bootstrap)
				}
			}
		})
	}
}

func TestWrongSettings(t *testing.T) {
	const file = "FILE"
	for _, tt := range []struct{ name, args, file, env, want string }{
		{"unknown key", "status", "port = 1\n\nfoo = 2\n", "", `read FILE: line 3: unknown key "foo"`},
		{"unknown table", "status", "port = 1\n[foo]\nport = 3\n", "", `read FILE: line 2: unknown key "foo"`},
		{"the first of several", "status", "b-b = 1\n'a' = 2", "", `read FILE: line 1: unknown key "b-b"`},
		{"quoted key", "status", "# foo = 1\n\"foo\" = 2", "", `read FILE: line 2: unknown key "foo"`},
		{"help is no setting", "status", "help = true", "", `read FILE: line 1: unknown key "help"`},
		{"not TOML", "status", "port = 1\nport\n", "", "read FILE: line 2: "},
		{"wrong type", "up", "mtu = 1280\nport = 'x'", "", `read FILE: line 2: port: invalid argument "x"`},
		{"list for one value", "up", "port = [1]", "", "read FILE: line 1: port: a list where one value is wanted"},
		{"table for a value", "up", "port = {a = 1}", "", "read FILE: line 1: port: neither"},
		{"wrong value", "up", "mtu = 1280\ncidr = '10.0.0.0/30'", "", "read FILE: line 2: cidr: 10.0.0.0/30 is not within /8 to /20"},
		{"wrong variable", "up", "", "MESHNET_PORT=x", `MESHNET_PORT: invalid argument "x"`},
		{"wrong value of a variable", "up", "", "MESHNET_MTU=1", "MESHNET_MTU: 1 is not within 1280 to 65535"},
		{"wrong log format", "ip", "", "MESHNET_LOG_FORMAT=xml", `MESHNET_LOG_FORMAT: "xml" is neither text nor json`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			if name, value, ok := strings.Cut(tt.env, "="); ok {
				r.env[name] = value
			}
			path := r.config(tt.file)
			res := r.run(append(strings.Fields(tt.args), "--config", path)...)
			r.want(res, exitUsage)
			if want := "meshnet: " + strings.ReplaceAll(tt.want, file, path); !strings.HasPrefix(res.stderr, want) {
				t.Errorf("stderr %q, want %q", res.stderr, want)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		r := newRig(t)
		res := r.run("status", "--config", "/nonexistent/c.toml")
		r.want(res, exitUsage)
		if !strings.HasPrefix(res.stderr, "meshnet: read /nonexistent/c.toml: no such file") {
			t.Errorf("stderr %q", res.stderr)
		}
	})
}

// The flags about paths come from everywhere, as all others do; a file may serve a node and a relay server.
func TestPathSettings(t *testing.T) {
	r := newRig(t)
	path := r.config("stun = ['a:1', 'b:2']\nrelay = true\nrelay-addr = ':0'\nmember-relay-rate = '5Mbit'\nportmap = false\nmax-frame = 4096\n")
	r.env["MESHNET_RELAY_SERVER"] = "https://a.example,https://b.example:9000"
	r.env["MESHNET_MEMBER_RELAY"] = "on"
	r.signals <- os.Interrupt // ends it once it is up
	r.want(r.run("up", "--config", path, "--metrics", "127.0.0.1:0"), exitDone)
	c := r.cfg
	if !slices.Equal(c.STUN, []string{"a:1", "b:2"}) || c.Relay == nil || c.Relay.Addr != ":0" || !c.Relay.AddrFixed ||
		c.MemberRelayRate != 625_000 || c.PortMap || c.MemberRelay != meshnet.MemberRelayOn || c.Metrics != "127.0.0.1:0" ||
		!slices.Equal(c.RelayServers, []string{"https://a.example", "https://b.example:9000"}) {
		t.Errorf("got %+v", c)
	}
	for _, wrong := range []struct{ env, value, want string }{
		{"MESHNET_MEMBER_RELAY", "maybe", `MESHNET_MEMBER_RELAY: "maybe" is none of auto, on, off`},
		{"MESHNET_RELAY_SERVER", "a.example", `MESHNET_RELAY_SERVER: relay URL "a.example": `},
		{"MESHNET_MEMBER_RELAY_RATE", "fast", `MESHNET_MEMBER_RELAY_RATE: invalid argument "fast"`},
	} {
		r := newRig(t)
		r.env[wrong.env] = wrong.value
		res := r.run("up")
		r.want(res, exitUsage)
		if !strings.HasPrefix(res.stderr, "meshnet: "+wrong.want) {
			t.Errorf("%s: stderr %q", wrong.env, res.stderr)
		}
	}
}
