package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/safefile"
)

// saveKey puts a key into the rig's state folder.
func (r *rig) saveKey() *identity.Identity {
	r.t.Helper()
	dir, err := safefile.Open(r.state())
	if err != nil {
		r.t.Fatal(err)
	}
	id := identity.New()
	if err := id.Save(dir); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) keyFile() []byte {
	data, _ := os.ReadFile(filepath.Join(r.state(), identity.KeyFile))
	return data
}

func TestKeyShow(t *testing.T) {
	r := newRig(t)
	id := r.saveKey()
	public, err := id.MarshalPublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	if res := r.run("key", "show"); res.stdout != id.ID().String()+"\n"+string(public) {
		t.Errorf("got %+v", res)
	}
	var doc map[string]string
	if err := json.Unmarshal([]byte(r.run("key", "show", "--json").stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc) != 2 || doc["id"] != id.ID().String() || doc["public"] != string(public) {
		t.Errorf("got %v", doc)
	}
}

func TestKeyNone(t *testing.T) {
	for _, args := range []string{"key show", "key export"} {
		r := newRig(t)
		res := r.run(strings.Fields(args)...)
		r.want(res, exitFailed)
		if !strings.Contains(res.stderr, "there is no key in "+r.state()) {
			t.Errorf("%s: %q", args, res.stderr)
		}
		if _, err := os.Stat(r.state()); err == nil {
			t.Error("looking made a state folder")
		}
	}
}

func TestKeyExportImport(t *testing.T) {
	from := newRig(t)
	id := from.saveKey()
	for _, format := range []string{"pem", "raw"} {
		exported := from.run("key", "export", "--format", format)
		from.want(exported, exitDone)
		if format == "raw" && !bytes.Equal([]byte(exported.stdout), id.MarshalRaw()) {
			t.Error("raw is not the seed")
		}
		for _, args := range []string{"", "-", "FILE", "FILE --format " + format} {
			r := newRig(t)
			words := append([]string{"key", "import"}, strings.Fields(args)...)
			r.stdin = exported.stdout
			if strings.HasPrefix(args, "FILE") {
				words[2], r.stdin = filepath.Join(r.dir, "in"), ""
				if err := os.WriteFile(words[2], []byte(exported.stdout), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			res := r.run(words...)
			r.want(res, exitDone)
			if res.stdout != id.ID().String()+"\n" || !bytes.Equal(r.keyFile(), from.keyFile()) {
				t.Errorf("%s %q: %+v", format, args, res)
			}
			info, err := os.Stat(filepath.Join(r.state(), identity.KeyFile))
			if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
		}
	}
}

func TestKeyImportRefused(t *testing.T) {
	other := identity.New()
	pem, err := other.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	raw := string(other.MarshalRaw())
	for _, tt := range []struct {
		name, stdin, args string
		member, running   bool
		code              int
	}{
		{name: "truncated PEM", stdin: string(pem[:len(pem)-20]), code: exitFailed},
		{name: "short seed", stdin: raw[:31], code: exitFailed},
		{name: "long seed", stdin: raw + "\n", code: exitFailed},
		{name: "short seed as raw", stdin: raw[:31], args: "--format raw", code: exitFailed},
		{name: "PEM as raw", stdin: string(pem), args: "--format raw", code: exitFailed},
		{name: "raw as PEM", stdin: raw, args: "--format pem", code: exitFailed},
		{name: "nothing", code: exitFailed},
		{name: "no file", args: "/nonexistent", code: exitFailed},
		{name: "running", stdin: string(pem), running: true, args: "--force", code: exitFailed},
		{name: "member", stdin: string(pem), member: true, code: exitFailed},
		{name: "member, forced", stdin: string(pem), member: true, args: "--force", code: exitDone},
		{name: "no member yet", stdin: string(pem), code: exitDone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.saveKey()
			before := r.keyFile()
			if tt.member {
				if err := os.WriteFile(filepath.Join(r.state(), "ledger.log"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.running {
				r.serve()
			}
			r.stdin = tt.stdin
			r.want(r.run(append([]string{"key", "import"}, strings.Fields(tt.args)...)...), tt.code)
			if kept := bytes.Equal(before, r.keyFile()); kept == (tt.code == exitDone) {
				t.Errorf("the old key is kept: %v", kept)
			}
		})
	}
}

// The key that is there already may always be imported again.
func TestKeyImportSame(t *testing.T) {
	r := newRig(t)
	id := r.saveKey()
	if err := os.WriteFile(filepath.Join(r.state(), "ledger.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.stdin = string(id.MarshalRaw())
	r.want(r.run("key", "import"), exitDone)
}
