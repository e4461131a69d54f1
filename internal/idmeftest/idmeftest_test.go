package idmeftest

import (
	"strings"
	"testing"
)

// One message that is right, and what is wrong with others.
func TestValidate(t *testing.T) {
	const good = `{"Version":"2.0.3","ID":"5c1e0d6b-7a43-5f2e-9b0a-3d9451d7c866","CreateTime":"2024-03-12T09:00:00.5Z",` +
		`"Analyzer":{"IP":"0.0.0.0","Name":"Slips","Model":"slips 1","Category":["NIDS"],"Data":["Flow"],"Method":["Heuristic"]},` +
		`"Status":"Event","Severity":"High","Confidence":0.5,"Source":[{"IP":"2001:db8::1","Port":[53]}],"Note":"{}"}`
	x := New()
	if err := x.Validate([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, err string }{
		{`"2.0.3"`, `"2.0.4"`, "Version"},
		{`"Status":"Event"`, `"Status":"event"`, "Status"},
		{`0.5,`, `1.5,`, "Confidence"},
		{`"ID":"5c`, `"ID":"c`, "ID"},
		{`[53]`, `[0]`, "Port"},
		{`2001:db8::1`, `2001:db8::1::2`, "IP"},
		{`T09:`, ` 09:`, "CreateTime"},
		{`"Name":"Slips",`, ``, "lacks Name"},
		{`"Note":"{}"`, `"Note":"{"`, "no JSON"},
		{`"Note"`, `"Notes"`, "unknown key Notes"},
		{`"Port":[53]`, `"Attachment":["a"]`, "no attachment a"},
		{`}`, ``, "object key"},
	} {
		err := x.Validate([]byte(strings.ReplaceAll(good, c.old, c.new)))
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.new, err, c.err)
		}
	}
}
