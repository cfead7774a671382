package meshnet_test

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/meshnet/meshnet"

// The layers of DESIGN.md §2. A package imports only what is in a lower one, or belongs to its own unit. A unit is a
// package with its subpackages; each system below platform is one of its own.
const (
	layerBase     = iota // knows nothing of meshnet
	layerIdentity        //
	layerData            // immutable data and pure functions on it
	layerPlatform        // what the OS should look like: for platform/* and the root
	layerWorker          //
	layerRoot            // where the parts are joined
	layerAPI             //
	layerCmd             //
)

var layers = map[string]int{
	"internal/dcbor":    layerBase,
	"internal/aqm":      layerBase,
	"internal/bucket":   layerBase,
	"internal/datagram": layerData,
	"internal/prom":     layerBase,
	"internal/safefile": layerBase,
	"internal/stream":   layerBase,
	"internal/sim":      layerBase,
	"internal/netlab":   layerBase,
	"internal/meshsim":  layerAPI,
	"internal/e2e":      layerCmd,
	"identity":          layerIdentity,
	"netmap":            layerData,
	"policy":            layerData,
	"platform":          layerPlatform,
	"tunnel":            layerWorker,
	"magicsock":         layerWorker,
	"control":           layerWorker,
	"discovery":         layerWorker,
	"relay":             layerWorker,
	"dnsresolver":       layerWorker,
	"proxy":             layerWorker,
	"transfer":          layerWorker,
	"web":               layerWorker,
	"platform/*":        layerWorker,
	".":                 layerRoot,
	"localapi":          layerAPI,
	"cmd":               layerCmd,
	"bench":             layerCmd,
}

// importers narrows who may import a unit, where a lower layer is not reason enough.
var importers = map[string]func(unit string) bool{
	"platform":        func(unit string) bool { return unit == "." || strings.HasPrefix(unit, "platform/") },
	"internal/sim":    func(unit string) bool { return layers[kind(unit)] >= layerRoot },
	"internal/netlab": func(unit string) bool { return unit == "bench" }, // and tests
}

// owners says which units know a module from outside, by import path prefix; the longest one counts. "platform/*" is
// every system's unit.
var owners = map[string][]string{
	"gvisor.dev/gvisor":                  {"tunnel"},
	"golang.zx2c4.com/wireguard":         {"tunnel"},
	"golang.zx2c4.com/wireguard/windows": {"platform/*"},
	"golang.zx2c4.com/wintun":            {"tunnel"},
	"github.com/vishvananda/netlink":     {"platform/*", "internal/netlab", "bench"},
	"github.com/vishvananda/netns":       {"platform/*", "internal/netlab"},
	"github.com/google/nftables":         {"platform/*", "internal/netlab"},
	"github.com/mdlayher/netlink":        {"platform/*", "internal/netlab"},
	"github.com/godbus/dbus":             {"platform/*"},
	"github.com/miekg/dns":               {"dnsresolver", "discovery"},
	"github.com/pion/stun":               {"discovery", "relay"},
	"github.com/hashicorp/mdns":          {"discovery"},
	"github.com/huin/goupnp":             {"discovery"},
	"github.com/anacrolix/dht":           {"discovery"},
	"github.com/spf13/cobra":             {"cmd"},
}

// unit is what a package, named by its folder, belongs to.
func unit(pkg string) string {
	parts := strings.SplitN(pkg, "/", 3)
	if len(parts) > 1 && (parts[0] == "internal" || parts[0] == "platform") {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

// kind is a unit's name in the tables.
func kind(unit string) string {
	if strings.HasPrefix(unit, "platform/") {
		return "platform/*"
	}
	return unit
}

// under reports whether an import path is prefix or below it.
func under(imp, prefix string) bool { return imp == prefix || strings.HasPrefix(imp, prefix+"/") }

// violations says what is wrong with the imports of packages, both named by folder; "." is the root package.
func violations(imports map[string][]string) []string {
	var bad []string
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		if _, ok := layers[kind(unit(pkg))]; !ok {
			bad = append(bad, pkg+" has no place in the layers")
			continue
		}
		for _, imp := range imports[pkg] {
			if why := forbidden(unit(pkg), imp); why != "" {
				bad = append(bad, fmt.Sprintf("%s imports %s: %s", pkg, imp, why))
			}
		}
	}
	return bad
}

// forbidden says why a unit must not import imp, or nothing.
func forbidden(from, imp string) string {
	if !under(imp, module) {
		return foreign(from, imp)
	}
	to := "."
	if imp != module {
		to = unit(strings.TrimPrefix(imp, module+"/"))
	}
	if from == to {
		return ""
	}
	low, ok := layers[kind(to)]
	if !ok {
		return "it has no place in the layers"
	}
	if layers[kind(from)] <= low {
		return "imports point down only"
	}
	if may := importers[kind(to)]; may != nil && !may(from) {
		return "it is not for " + from
	}
	return ""
}

// foreign says why a unit must not import a package of another module, or nothing.
func foreign(from, imp string) string {
	longest := ""
	for prefix := range owners {
		if under(imp, prefix) && len(prefix) > len(longest) {
			longest = prefix
		}
	}
	if longest == "" || slices.Contains(owners[longest], kind(from)) {
		return ""
	}
	return "only for " + strings.Join(owners[longest], ", ")
}

func TestImports(t *testing.T) {
	imports := make(map[string][]string)
	for _, file := range goFiles(t) {
		// Parsed one by one, not listed by the build: that would leave out what other systems build.
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		pkg := path.Dir(file)
		imports[pkg] = slices.Clip(imports[pkg]) // an entry also for a package that imports nothing
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			imports[pkg] = append(imports[pkg], imp)
		}
	}
	if len(imports) == 0 {
		t.Fatal("no packages found")
	}
	for _, v := range violations(imports) {
		t.Error(v)
	}
}

// The table has to be able to fail.
func TestViolations(t *testing.T) {
	for _, tt := range []struct {
		pkg, imp string
		ok       bool
	}{
		{"cmd/meshnet", module + "/localapi", true},
		{"cmd/meshnet", module, true},
		{"cmd/meshnet", module + "/relay/relayserver", true},
		{"localapi", module, true},
		{"localapi", module + "/cmd/meshnet", false},
		{".", module + "/localapi", false},
		{".", module + "/tunnel", true},
		{".", module + "/platform", true},
		{".", module + "/platform/linux", true},
		{".", module + "/internal/sim", true},
		{".", module + "/internal/netlab", false},
		{"tunnel", module, false},
		{"tunnel", module + "/magicsock", false},
		{"tunnel", module + "/netmap", true},
		{"tunnel", module + "/policy", true},
		{"tunnel", module + "/internal/safefile", true},
		{"tunnel", module + "/platform", false},
		{"magicsock", module + "/magicsock/disco", true},
		{"magicsock/udp", module + "/magicsock/disco", true},
		{"magicsock", module + "/control/ledger", false},
		{"magicsock", module + "/internal/sim", false},
		{"control/join", module + "/control/ledger", true},
		{"platform/linux", module + "/platform", true},
		{"platform/linux", module + "/platform/darwin", false},
		{"platform", module + "/platform/linux", false},
		{"platform", module + "/netmap", true},
		{"netmap", module + "/policy", false},
		{"netmap", module + "/identity", true},
		{"identity", module + "/netmap", false},
		{"identity", module + "/internal/safefile", true},
		{"internal/safefile", module + "/identity", false},
		{"internal/dcbor", module + "/internal/safefile", false},
		{"netmap", module + "/unheard", false},
		{"unheard", "fmt", false},
		{"internal/unheard", "fmt", false},
		{"tunnel", "gvisor.dev/gvisor/pkg/tcpip", true},
		{"magicsock", "gvisor.dev/gvisor/pkg/tcpip", false},
		{"tunnel", "golang.zx2c4.com/wireguard/device", true},
		{".", "golang.zx2c4.com/wireguard/device", false},
		{".", "golang.zx2c4.com/wireguard/tun/netstack", false},
		{"magicsock", "golang.zx2c4.com/wireguard/tun", false},
		{"magicsock", "golang.zx2c4.com/wireguard/conn", false},
		{"tunnel", "golang.zx2c4.com/wireguard/conn", true},
		{"control", "golang.zx2c4.com/wireguard/conn", false},
		{"platform/windows", "golang.zx2c4.com/wireguard/windows/tunnel/winipcfg", true},
		{"platform/linux", "github.com/vishvananda/netlink", true},
		{"platform", "github.com/vishvananda/netlink", false},
		{"internal/netlab", "github.com/google/nftables/expr", true},
		{"discovery", "github.com/vishvananda/netlink", false},
		{"relay/relayserver", "github.com/pion/stun/v3", true},
		{"magicsock", "github.com/pion/stun/v3", false},
		{"cmd/meshnet", "github.com/spf13/cobra", true},
		{"localapi", "github.com/spf13/cobra", false},
		{"bench", module + "/internal/netlab", true},
		{"bench", "github.com/vishvananda/netlink", true},
		{"identity", "github.com/spf13/cobrastore", true}, // a name that only begins the same
	} {
		got := violations(map[string][]string{tt.pkg: {tt.imp}})
		if ok := len(got) == 0; ok != tt.ok {
			t.Errorf("%s imports %s: violations %q, want ok %v", tt.pkg, tt.imp, got, tt.ok)
		}
	}
}

// Someone who opens a folder finds out from its doc.go what lives there, and no file is too long to read.
func TestShape(t *testing.T) {
	const longest = 500
	packages := make(map[string]bool) // whether it has a doc.go
	for _, file := range goFiles(t) {
		dir, name := path.Split(file)
		packages[dir] = packages[dir] || name == "doc.go"
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n > longest && !bytes.HasPrefix(text, []byte("// Code generated ")) {
			t.Errorf("%s has %d lines, more than %d", file, n, longest)
		}
	}
	for dir, documented := range packages {
		if !documented {
			t.Errorf("%sdoc.go is missing", dir)
		}
	}
}

// goFiles are the module's Go files but for tests, by slash-separated path from the root.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	root := os.DirFS(".")
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && !ours(root, p):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go"):
			files = append(files, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// ours reports whether a folder belongs to the module, as the go command sees it.
func ours(root fs.FS, dir string) bool {
	base := path.Base(dir)
	if base == "testdata" || base == "vendor" || base == "node_modules" || base[0] == '.' || base[0] == '_' {
		return false
	}
	_, err := fs.Stat(root, path.Join(dir, "go.mod"))
	return err != nil
}

// Whoever ships a binary ships its licences: NOTICE names every module that go.mod does.
func TestNotice(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	notice, err := os.ReadFile("NOTICE")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for line := range strings.Lines(string(notice)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			named[fields[0]] = true
		}
	}
	required := 0
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) < 2 || !strings.HasPrefix(fields[1], "v") {
			continue
		}
		required++
		if !named[fields[0]] {
			t.Errorf("NOTICE does not name %s", fields[0])
		}
	}
	if required == 0 {
		t.Error("go.mod requires nothing: it was not understood")
	}
}
