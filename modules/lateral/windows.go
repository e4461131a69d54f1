package lateral

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// call is what a DCE/RPC call means here. One without a what is of no use.
type call struct {
	typ        evidence.Type
	what       string
	text       string
	mitre      string
	level      evidence.Level
	confidence float64
}

// manager is the call that opens the service manager. Looking at services is
// not changing them, so one host says nothing.
const manager = "service manager"

// callOf knows the operations that change something on another host, by
// interface and operation. What they stand for follows MITRE's BZAR
// (github.com/mitre-attack/bzar) and Microsoft's open specifications MS-SCMR,
// MS-TSCH, MS-RRP, MS-WMI and MS-RSP. Sensors that do not know an operation
// log its number.
func callOf(d *flow.DCERPCPart) call {
	op := strings.TrimPrefix(d.Operation, "unknown-")
	switch iface(d.Endpoint) {
	case "svcctl":
		switch {
		case has(op, "CreateService", "CreateWowService") || is(op, "12", "24", "44", "45", "60"):
			return call{RemoteService, "create service", "created a service on", "T1543.003", evidence.Medium, 0.8}
		case has(op, "ChangeServiceConfig") || is(op, "11", "23"):
			return call{RemoteService, "change service", "changed a service of", "T1543.003", evidence.Medium, 0.6}
		case has(op, "StartService") || is(op, "19", "31"):
			return call{RemoteService, "start service", "started a service on", "T1569.002", evidence.Medium, 0.4}
		case has(op, "OpenSCManager") || is(op, "15", "27", "64"):
			return call{RemoteService, manager, "opened the service manager of", "T1569.002", evidence.Low, 0.5}
		}
	case "atsvc":
		if has(op, "JobAdd") || is(op, "0") {
			return call{RemoteService, "task", "created a task on", "T1053.002", evidence.Medium, 0.8}
		}
	case "itaskschedulerservice":
		switch {
		case has(op, "SchRpcRegisterTask") || is(op, "1"):
			return call{RemoteService, "task", "created a task on", "T1053.005", evidence.Medium, 0.8}
		case op == "SchRpcRun" || has(op, "SchRpcEnableTask") || is(op, "12", "19"):
			return call{RemoteService, "run task", "ran a task on", "T1053.005", evidence.Medium, 0.5}
		}
	case "winreg":
		switch {
		case has(op, "SaveKey") || is(op, "20", "31"):
			return call{RemoteService, "save registry", "saved a part of the registry, where password hashes are, of", "T1003.002", evidence.Medium, 0.8}
		case has(op, "SetValue", "CreateKey") || is(op, "6", "22"):
			return call{RemoteService, "write registry", "wrote to the registry of", "T1112", evidence.Medium, 0.4}
		}
	case "iwbemservices":
		if has(op, "ExecMethod") || is(op, "24", "25") {
			return call{RemoteExecution, "WMI", "ran a method by WMI on", "T1047", evidence.Medium, 0.6}
		}
	case "initshutdown", "windowsshutdown":
		if has(op, "Shutdown") && !has(op, "Abort") {
			return call{RemoteExecution, "shutdown", "shut down", "T1529", evidence.Medium, 0.5}
		}
	}
	return call{}
}

// iface returns the name of an interface in lower case; Suricata may give its
// number instead.
func iface(endpoint string) string {
	switch strings.ToLower(endpoint) {
	case "svcctl", "367abb81-9844-35f1-ad32-98f038001003":
		return "svcctl"
	case "atsvc", "1ff70682-0a51-30e8-076d-740be8cee98b":
		return "atsvc"
	case "itaskschedulerservice", "86d35949-83c9-4044-b424-db363231fd0c":
		return "itaskschedulerservice"
	case "winreg", "338cd001-2244-31f1-aaaa-900038001003":
		return "winreg"
	case "iwbemservices", "9556dc99-828c-11cf-a37e-00aa003240c7":
		return "iwbemservices"
	case "initshutdown", "894de0c0-0d55-11d3-a322-00c04fa321a1":
		return "initshutdown"
	case "windowsshutdown", "d95afe70-a6d5-4259-822e-2c84da1ddb0d":
		return "windowsshutdown"
	}
	return ""
}

func has(op string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(op, p) {
			return true
		}
	}
	return false
}

func is(op string, names ...string) bool { return slices.Contains(names, op) }

// minManagers is the number of hosts whose service manager one host opens
// before that is told: an administrator looks at one at a time.
const minManagers = 2

func (rule) call(cx *modules.Context, st *State, f *flow.Flow, c call) {
	if c.what == "" {
		return
	}
	d := finding{Type: c.typ, Level: c.level, Confidence: c.confidence, MITRE: []string{c.mitre}, what: c.what, text: c.text}
	if c.what != manager {
		emit(cx, st, f, d)
		return
	}
	k := Subject{RemoteService, f.Dst, "seen", cx.Window().Start}
	if _, known := st.Subjects.Get(k); known {
		return
	}
	st.Subjects.Put(k, Count{}, maxSubjects)
	w := cx.Window().Start
	m, _ := st.Managers.Get(w)
	m.N++
	m.UIDs = named(m.UIDs, f.UID)
	step := modules.Step(m.N, minManagers)
	report := step > m.Step
	m.Step = max(m.Step, step)
	st.Managers.Put(w, m, maxWindows)
	if !report {
		return
	}
	cx.Emit(evidence.Evidence{
		Type: RemoteService, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Level: c.level, Confidence: c.confidence, MITRE: d.MITRE,
		Description: fmt.Sprintf("%s opened the service managers of %d hosts.", f.Src, m.N),
		Proto:       "tcp", DstPort: f.DstPort, UIDs: slices.Clone(m.UIDs), Count: m.N, Subject: manager, Step: step,
	})
}

// deed is what was done on a share.
type deed uint8

const (
	none    deed = iota
	program      // a program was written to an administrative share
	opened       // a program was opened there; Zeek does not log all writes
	written      // something else was written there
	psexec       // the pipe or the program of PsExec and its like
	output       // what a command printed was fetched there, as Impacket's programs do
)

// shareOf judges a record about a file or a pipe.
func shareOf(p *flow.SMBPart) deed {
	if refusedStatus(p.Status) {
		return none
	}
	if remoteTool(p.Name) || remoteTool(p.Path) {
		return psexec
	}
	if p.Name == "" || !adminShare(p.Path) {
		return none
	}
	if commandOutput(p.Name) {
		return output
	}
	wrote := has(p.Action, "WRITE", "RENAME", "FILE_CREATE", "OVERWRITE", "SUPERSEDE") && !has(p.Action, "PIPE", "PRINT") ||
		has(p.Command, "COMMAND_WRITE", "WRITE_ANDX")
	switch {
	case wrote && executable(p.Name):
		return program
	case wrote:
		return written
	case executable(p.Name) && has(p.Action, "OPEN"):
		return opened
	}
	return none
}

func refusedStatus(s string) bool {
	s = strings.TrimPrefix(s, "STATUS_")
	return s == "ACCESS_DENIED" || s == "OBJECT_NAME_NOT_FOUND" || s == "LOGON_FAILURE" || s == "BAD_NETWORK_NAME"
}

// adminShare reports whether a path is one of the shares that Windows makes
// for administrators: ADMIN$, or the letter of a drive.
func adminShare(path string) bool {
	path = strings.TrimRight(path, `\`)
	if i := strings.LastIndexByte(path, '\\'); i >= 0 {
		path = path[i+1:]
	}
	return strings.EqualFold(path, "ADMIN$") || len(path) == 2 && path[1] == '$' && (path[0]|0x20) >= 'a' && (path[0]|0x20) <= 'z'
}

// endings are those of files that Windows runs.
var endings = [...]string{".exe", ".dll", ".sys", ".bat", ".cmd", ".ps1", ".vbs", ".js", ".hta", ".scr", ".com", ".msi", ".pif", ".wsf"}

func executable(name string) bool {
	for _, e := range endings {
		if len(name) > len(e) && strings.EqualFold(name[len(name)-len(e):], e) {
			return true
		}
	}
	return false
}

// tools are names that PsExec and the programs like it give to what they
// leave on a host and to the pipes that they speak through.
var tools = [...]string{"psexesvc", "paexec", "remcom_", "csexecsvc", "winexesvc"}

func remoteTool(name string) bool {
	for i := range len(name) {
		for _, t := range tools {
			if len(name)-i >= len(t) && strings.EqualFold(name[i:i+len(t)], t) {
				return true
			}
		}
	}
	return false
}

// commandOutput reports whether a file is named as those in which Impacket's
// wmiexec, dcomexec and smbexec keep what a command printed until they have
// fetched it: two underscores and the time in seconds with its fraction, the
// first digits of that, or the word output (github.com/fortra/impacket).
func commandOutput(name string) bool {
	name = strings.TrimPrefix(name, `\`)
	rest, ok := strings.CutPrefix(name, "__")
	if !ok {
		return false
	}
	if rest == "output" || strings.HasPrefix(rest, "output_") {
		return true
	}
	whole, fraction, _ := strings.Cut(rest, ".")
	return len(whole) >= 5 && digits(whole) && digits(fraction)
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func (rule) share(cx *modules.Context, st *State, f *flow.Flow) {
	d := finding{Type: AdminShareWrite, MITRE: []string{"T1021.002", "T1570"}}
	switch shareOf(f.SMB) {
	case program:
		d.Level, d.Confidence, d.what, d.text = evidence.Medium, 0.8, "program", "put a program on an administrative share of"
	case opened:
		d.Level, d.Confidence, d.what, d.text = evidence.Medium, 0.4, "opened", "opened a program on an administrative share of"
	case written:
		d.Level, d.Confidence, d.what, d.text = evidence.Low, 0.5, "file", "wrote to an administrative share of"
	case psexec:
		d.Type, d.MITRE = RemoteExecution, []string{"T1569.002"}
		d.Level, d.Confidence, d.what, d.text = evidence.Medium, 0.8, "PsExec", "used PsExec or a program like it on"
	case output:
		d.Level, d.Confidence, d.what, d.text = evidence.Medium, 1, "output", "fetched what a command had printed, as Impacket's programs do, from an administrative share of"
	case none:
		return
	}
	emit(cx, st, f, d)
}

// file names the file or pipe of a record.
func file(f *flow.Flow) string {
	if f.Kind != flow.SMB {
		return ""
	}
	return fmt.Sprintf(" (%q on %q)", clip(f.SMB.Name), clip(f.SMB.Path))
}

// clip bounds a name for a description.
func clip(s string) string { return s[:min(len(s), 120)] }
