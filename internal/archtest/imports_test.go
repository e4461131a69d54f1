package archtest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// layer says what the production code of a package may import besides the
// standard library.
type layer struct {
	own     []string // packages of this repository; a last element of "*" stands for any folder there
	foreign []string // packages of others, and what is below them
	pure    bool     // no I/O, no locks, no chance: see impure
}

func leaves() []string {
	return []string{"parsers/flow", "profiler/profile", "profiler/letters", "alerts/evidence", "feeds/intel"}
}

// layers is the table of docs/architecture.md. A package that is not in it
// fails the test: its place is to be thought about.
func layers() map[string]layer {
	const (
		fastjson = "github.com/valyala/fastjson"
		yaml     = "go.yaml.in/yaml/v3"
	)
	flow := []string{"parsers/flow"}
	netlink := []string{"github.com/mdlayher/netlink", "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys"}
	module := append([]string{"modules"}, leaves()...)
	return map[string]layer{
		// The words that the stages share.
		"parsers/flow":     {},
		"profiler/profile": {},
		"profiler/letters": {pure: true},
		"alerts/evidence":  {},
		"feeds/intel":      {},

		// What is known besides the traffic.
		"feeds":              {own: []string{"feeds/format", "feeds/intel"}, foreign: []string{"github.com/klauspost/compress", yaml, "golang.org/x/sync", "golang.org/x/sys/unix"}},
		"feeds/format":       {own: []string{"feeds/intel", "profiler/profile"}, foreign: []string{"golang.org/x/net"}},
		"feeds/geo":          {foreign: []string{"github.com/oschwald/maxminddb-golang/v2"}},
		"feeds/oui":          {pure: true},
		"feeds/suffix":       {foreign: []string{"golang.org/x/net/publicsuffix"}, pure: true},
		"feeds/oui/generate": {own: []string{"feeds/oui"}},
		"feeds/online":       {own: []string{"feeds/intel", "feeds/suffix", "parsers/flow", "profiler/profile"}, foreign: []string{"golang.org/x/net"}},
		"feeds/hunt":         {own: []string{"feeds/intel", "parsers/flow"}, foreign: []string{fastjson}},

		// Bytes to records.
		"parsers/zeek":         {own: flow, foreign: []string{fastjson}, pure: true},
		"parsers/suricata":     {own: flow, foreign: []string{fastjson}, pure: true},
		"parsers/argus":        {own: flow, pure: true},
		"parsers/nfdump":       {own: flow, pure: true},
		"parsers/packet/proto": {own: flow, foreign: []string{"golang.org/x/crypto/x509roots/fallback/bundle"}},
		"parsers/packet":       {own: []string{"parsers/flow", "parsers/packet/proto"}, foreign: []string{"github.com/gopacket/gopacket", "github.com/klauspost/compress"}},
		"parsers/packet/bpf":   {own: []string{"parsers/packet"}, foreign: []string{"golang.org/x/net/bpf"}},
		"parsers/packet/live":  {own: []string{"parsers/packet", "parsers/packet/bpf"}, foreign: []string{"golang.org/x/net/bpf", "golang.org/x/sys"}},
		"parsers/tail":         {foreign: []string{"github.com/fsnotify/fsnotify", "github.com/klauspost/compress"}},
		"parsers": {own: []string{
			"parsers/flow", "parsers/zeek", "parsers/suricata", "parsers/argus", "parsers/nfdump", "parsers/packet", "parsers/tail",
		}},

		// Records to evidence.
		"modules":         {own: leaves()},
		"modules/*":       {own: append([]string{"feeds/oui", "feeds/suffix"}, module...), foreign: []string{"golang.org/x/net/publicsuffix", "github.com/mileusna/useragent"}, pure: true},
		"modules/all":     {own: []string{"modules", "modules/*"}},
		"modules/modtest": {own: append([]string{"profiler", "parsers/*"}, module...), foreign: []string{"github.com/google/go-cmp", yaml, "golang.org/x/tools/txtar"}},
		"profiler":        {own: module},

		// Evidence to alerts, and out.
		"alerts":            {own: []string{"alerts/evidence", "profiler/profile"}},
		"alerts/export":     {own: append([]string{"alerts"}, leaves()...)},
		"alerts/whitelist":  {own: []string{"alerts/evidence", "parsers/flow"}, foreign: []string{"golang.org/x/net"}},
		"alerts/dossier":    {own: []string{"alerts/evidence", "feeds/geo", "feeds/intel", "feeds/oui"}},
		"alerts/block":      {},
		"alerts/block/nft":  {own: []string{"alerts/block"}, foreign: append([]string{"github.com/google/nftables"}, netlink...)},
		"alerts/block/host": {own: []string{"alerts/block"}, foreign: netlink},
		"alerts/block/arp":  {own: []string{"alerts/block"}, foreign: netlink},

		"zeekscripts": {foreign: []string{"golang.org/x/sys"}},
		"config":      {foreign: []string{"github.com/spf13/viper", yaml}},

		"cmd/slips": {own: []string{"alerts", "alerts/*", "config", "feeds", "feeds/*", "zeekscripts", "alerts/block/*", "internal/eval", "internal/privilege", "internal/selftest", "internal/service", "modules", "modules/all", "parsers", "parsers/flow", "parsers/packet", "parsers/packet/bpf", "parsers/packet/live", "parsers/zeek", "parsers/suricata", "profiler", "profiler/*"}, foreign: []string{
			fastjson, "github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/vbauerster/mpb/v8", "golang.org/x/sync", "golang.org/x/term",
		}},
		"cmd/bench": {foreign: []string{fastjson}},

		"internal/eval":      {own: append([]string{"alerts"}, leaves()...)},
		"internal/selftest":  {own: []string{"modules", "alerts/evidence"}},
		"internal/archtest":  {},
		"internal/idmeftest": {},
		"internal/privilege": {foreign: []string{"golang.org/x/sys"}},
		"internal/service":   {foreign: []string{"golang.org/x/sys"}},
		"profiler/coverage":  {own: []string{"modules", "alerts/evidence", "parsers/flow", "profiler/profile"}},
		"internal/agree":     {own: []string{"parsers/flow", "parsers/zeek"}},
		"internal/netspace":  {foreign: append([]string{"golang.org/x/net"}, netlink...)}, // for tests
	}
}

// testForeign are packages of others that tests may import besides those of
// the code.
func testForeign() []string {
	return []string{
		"github.com/google/go-cmp", "go.uber.org/goleak", "github.com/rogpeppe/go-internal/testscript", "golang.org/x/tools/txtar",
		"go.yaml.in/yaml/v3", "github.com/klauspost/compress", "github.com/maxmind/mmdbwriter", "github.com/gaissmai/bart", "golang.org/x/net", "github.com/gopacket/gopacket",
		"github.com/vishvananda", "golang.org/x/sys",
	}
}

// impure are the packages of the standard library that a detection or a
// decoder has no business with.
func impure() []string {
	return []string{
		"os", "os/exec", "os/signal", "net", "net/http", "sync", "sync/atomic", "syscall", "math/rand", "math/rand/v2",
		"crypto/rand", "io/fs", "log", "runtime", "database/sql", "context",
	}
}

// within reports whether p is one of the packages of list or below one.
func within(p string, list []string) bool {
	return slices.ContainsFunc(list, func(l string) bool { return p == l || strings.HasPrefix(p, l+"/") })
}

// match reports whether the package p of this repository is one of list.
func match(p string, list []string) bool {
	return slices.Contains(list, p) || slices.Contains(list, path.Dir(p)+"/*")
}

// checkImports compares what files import with a table of layers.
func checkImports(files []source, table map[string]layer) (problems []string) {
	used := make(map[string]bool)
	for _, f := range files {
		key := f.dir
		l, ok := table[key]
		if !ok {
			key = path.Dir(f.dir) + "/*"
			l, ok = table[key]
		}
		if !ok {
			problems = append(problems, f.dir+": not in the table of imports")
			continue
		}
		used[key] = true
		for _, i := range f.imports {
			own, isOwn := strings.CutPrefix(i, modulePath+"/")
			isForeign := !isOwn && strings.Contains(strings.Split(i, "/")[0], ".")
			switch {
			case i == "testing" && !f.test && f.dir != "modules/modtest" && f.dir != "internal/netspace":
				problems = append(problems, f.path+": imports testing")
			case isOwn && strings.HasPrefix(own, "cmd/"):
				problems = append(problems, f.path+": imports "+own+"; nobody imports a command")
			case isOwn && !f.test && !match(own, l.own):
				problems = append(problems, f.path+": may not import "+own)
			case isForeign && !within(i, l.foreign) && !(f.test && within(i, testForeign())):
				problems = append(problems, f.path+": may not import "+i)
			case l.pure && !f.test && slices.Contains(impure(), i):
				problems = append(problems, fmt.Sprintf("%s: may not import %s: no I/O, locks or chance in %s", f.path, i, f.dir))
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if !used[key] {
			problems = append(problems, key+": in the table of imports, but there is no such package")
		}
	}
	return slices.Compact(problems)
}

func TestImports(t *testing.T) { report(t, checkImports(repository(t), layers())) }
