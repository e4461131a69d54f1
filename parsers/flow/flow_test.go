package flow

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// Every kind gets its own part, empty again after a reset, without allocation
// once the Flow has held it.
func TestResetEmptiesAndKeeps(t *testing.T) {
	var f Flow
	for k := range NumKinds {
		f.Reset(k)
		f.UID, f.Time, f.SrcPort, f.HasPorts = "C1", 7, 9, true
		fillPart(t, &f, k)
		f.Reset(k)
		if f.UID != "" || f.Time != 0 || f.SrcPort != 0 || f.HasPorts || f.Kind != k {
			t.Errorf("%s: the common fields were not emptied: %+v", k, f)
		}
		if k == Conn {
			continue
		}
		v := part(t, &f, k)
		for i := range v.NumField() {
			x, name := v.Field(i), v.Type().Field(i).Name
			if (k == SSH && name == "AuthAttempts") || (k == Software && strings.HasPrefix(name, "M")) {
				if x.Int() != -1 {
					t.Errorf("%s.%s is %v, want -1 for not logged", k, name, x)
				}
				continue
			}
			if x.Kind() == reflect.Slice {
				if x.Len() != 0 {
					t.Errorf("%s.%s was not emptied", k, name)
				}
			} else if !x.IsZero() {
				t.Errorf("%s.%s is %v after a reset", k, name, x)
			}
		}
		if n := testing.AllocsPerRun(10, func() { f.Reset(k) }); n != 0 {
			t.Errorf("%s: a reset allocates %v times", k, n)
		}
	}
}

// part returns the part of kind k by its field of Parts.
func part(t *testing.T, f *Flow, k Kind) reflect.Value {
	t.Helper()
	names := map[Kind]string{
		Files: "Files", Notice: "Notice", Weird: "Weird", Software: "Software", Tunnel: "Tunnel", Login: "Login", Known: "Known",
		Kerberos: "Kerberos", DCERPC: "DCERPC", MySQL: "MySQL", Alert: "Alert", Lookup: "Lookup", QUIC: "SSL",
	}
	n, ok := names[k]
	if !ok {
		n = strings.ToUpper(k.String())
	}
	v := reflect.ValueOf(f.Parts).Elem().FieldByName(n)
	if !v.IsValid() || v.IsNil() {
		t.Fatalf("%s has no part %s after a reset", k, n)
	}
	return v.Elem()
}

// fillPart sets every field of the part to something.
func fillPart(t *testing.T, f *Flow, k Kind) {
	t.Helper()
	if k == Conn {
		return
	}
	v := part(t, f, k)
	for _, x := range v.Fields() {
		switch x.Kind() {
		case reflect.String:
			x.SetString("x")
		case reflect.Int, reflect.Int64:
			x.SetInt(5)
		case reflect.Uint8, reflect.Uint16, reflect.Uint32:
			x.SetUint(2)
		case reflect.Float64:
			x.SetFloat(0.5)
		case reflect.Bool:
			x.SetBool(true)
		case reflect.Slice:
			x.Set(reflect.MakeSlice(x.Type(), 3, 3))
		}
	}
}

// Text that was held stays what it was while more is held, and a Flow does not
// keep the room of one enormous line.
func TestHold(t *testing.T) {
	var f Flow
	f.Reset(DNS)
	var want, got []string
	for i := range 1000 {
		s := fmt.Sprint("text ", i)
		want, got = append(want, s), append(got, f.Hold([]byte(s)))
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("held text has changed")
	}
	f.Hold(make([]byte, 1<<20))
	f.Reset(DNS)
	if c := cap(f.scratch); c > maxScratch {
		t.Errorf("%d bytes are kept", c)
	}
}

func TestParseProto(t *testing.T) {
	for s, want := range map[string]Proto{
		"tcp": TCP, "TCP": TCP, "6": TCP, "Udp": UDP, "17": UDP, "icmp": ICMP, "IPv6-ICMP": ICMP6, "icmp6": ICMP6, "58": ICMP6,
		"igmp": IGMP, "GRE": GRE, "sctp": SCTP, "esp": ESP, "arp": ProtoARP, "unknown_transport": ProtoUnknown, "-": ProtoUnknown,
		"": ProtoUnknown, "ospf": ProtoOther,
	} {
		if got := ParseProto(s); got != want {
			t.Errorf("%q is %v, want %v", s, got, want)
		}
	}
}

func TestKindSet(t *testing.T) {
	s := Of(Conn, DNS, Alert)
	if !s.Has(Conn) || !s.Has(Alert) || s.Has(HTTP) || s.Single() || !Of(Alert).Single() || KindSet(0).Single() {
		t.Error("sets of kinds are wrong")
	}
	if got := strings.Join(s.Names(), " "); got != "conn dns alert" {
		t.Errorf("names are %q", got)
	}
	if NumKinds > 31 {
		t.Error("a KindSet has no room for so many kinds")
	}
}

// A batch goes back once, when the last user is done.
func TestBatchRelease(t *testing.T) {
	freed := 0
	b := NewBatch(func(*Batch) { freed++ })
	b.Hold()
	b.Release()
	if freed != 0 {
		t.Fatal("given back while in use")
	}
	b.Release()
	if freed != 1 {
		t.Fatal("not given back")
	}
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "BUG:") {
			t.Errorf("releasing too often: %v", r)
		}
	}()
	b.Release()
}

func TestBatchNextAndDrop(t *testing.T) {
	b := NewBatch(nil)
	f := b.Next()
	f.Reset(DNS)
	f.DNS.Answers = append(f.DNS.Answers, "a")
	p := f.Parts
	b.Drop()
	if len(b.Flows) != 0 {
		t.Fatal("not dropped")
	}
	if g := b.Next(); g.Parts != p {
		t.Error("the memory of a dropped record was not kept")
	}
	b.Rejects, b.Mark = append(b.Rejects, Reject{Reason: "x"}), Ended
	b.Reuse()
	if len(b.Flows)+len(b.Data)+len(b.Rejects) != 0 || b.Mark != More {
		t.Error("not empty after Reuse")
	}
}

func TestSyntaxError(t *testing.T) {
	err := error(&SyntaxError{Source: "conn.log", Line: 7, Field: "id.orig_p", Value: "99999", Err: fmt.Errorf("%w (over 65535)", ErrPort)})
	if got, want := err.Error(), `conn.log:7: field id.orig_p: invalid port (over 65535): "99999"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !errors.Is(err, ErrPort) || Reason(err) != "invalid port" || Reason(errors.New("?")) != "other" {
		t.Error("the reason is lost")
	}
}
