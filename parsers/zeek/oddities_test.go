package zeek

import (
	"errors"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

const (
	fields = "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tconn_state"
	row    = "1700000000.5\tC1\t10.0.0.1\t50000\t192.0.2.1\t443\ttcp\tSF"
	object = `{"ts":1700000000.5,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":443,"proto":"tcp","conn_state":"SF"}`
)

// plainConn is what the three above say.
func plainConn() flow.Flow {
	return flow.Flow{
		Kind: flow.Conn, Time: 1700000000500000000, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
		DstPort: 443, HasPorts: true, Proto: flow.TCP, RawState: "SF", State: flow.Established,
	}
}

func labelled(f flow.Flow, label, detail string) flow.Flow {
	f.Label, f.DetailedLabel = label, detail
	return f
}

// One case for each oddity, with where it was seen.
func TestOddities(t *testing.T) {
	with := func(change func(*flow.Flow)) flow.Flow {
		f := plainConn()
		change(&f)
		return f
	}
	conn := plainConn()
	blanks := strings.Join(strings.Split(row, "\t"), "   ")
	for _, c := range []struct {
		name  string
		log   string
		lines []string
		want  flow.Flow
	}{
		{"carriage return", "conn", []string{fields + "\r", row + "\r"}, conn},
		{"carriage return, json", "conn", []string{object + "\r"}, conn},
		{"byte order mark", "conn", []string{"\ufeff" + fields, row}, conn},
		{"byte order mark, json", "conn", []string{"\ufeff" + object}, conn},
		{"blank before #separator: zeek/test10-mixed/conn.log", "conn", []string{"\t#separator \\x09", fields, row}, conn},
		{"tab behind #separator: parsers/zat/conn_date_issue.log", "conn", []string{"#separator\t\\x09", fields, row}, conn},
		{"other separator", "conn", []string{
			`#separator \x2c`, `#set_separator,|`, "#path,conn",
			strings.ReplaceAll(fields, "\t", ","), strings.ReplaceAll(row, "\t", ","),
		}, conn},
		{"separator of two characters", "conn", []string{
			`#separator \x7c\x7c`,
			strings.ReplaceAll(fields, "\t", "||"), strings.ReplaceAll(row, "\t", "||"),
		}, conn},
		{"separator as itself", "", []string{
			`#separator |`, "#path|conn",
			strings.ReplaceAll(fields, "\t", "|"), strings.ReplaceAll(row, "\t", "|"),
		}, conn},
		{"other words for unset and empty", "conn", []string{
			"#separator \\x09", "#unset_field\tNONE", "#empty_field\tVOID",
			fields + "\thistory\tlabel\tservice", row + "\tNONE\tVOID\t-",
		}, with(func(f *flow.Flow) { f.Service = "-" })},
		{
			"unset and empty are literal when escaped", "conn",
			[]string{fields + "\thistory\tlabel", row + "\t\\x2d\t\\x28empty)"},
			labelled(with(func(f *flow.Flow) { f.History = "-" }), "(empty)", ""),
		},
		{"columns in another order, an unknown one among them", "conn", []string{
			"#fields\t_node_name\tid.resp_p\tid.resp_h\tid.orig_p\tid.orig_h\tuid\tts\tconn_state\tproto",
			"worker-1\t443\t192.0.2.1\t50000\t10.0.0.1\tC1\t1700000000.5\tSF\ttcp",
		}, conn},
		{"unknown column in the middle: parsers/has_unknown_field", "conn", []string{
			strings.Replace(fields, "uid", "uid\ti_dont_exist", 1), strings.Replace(row, "C1", "C1\tbingbong", 1),
		}, conn},
		{"header changes in mid-file", "conn", []string{
			"#separator \\x09", "#path\tdns", "#fields\tts\tquery", "1\tx",
			"#close\t2020", "#separator \\x09", "#path\tconn", fields, "#types\ttime", row,
		}, conn},
		{
			"header without #separator changes in mid-file", "conn",
			[]string{fields, row, fields + "\tlabel", row + "\tM"},
			labelled(conn, "M", ""),
		},
		{"escapes", "conn", []string{fields + "\tlabel", row + `	a\x09b\\c\d\x`}, labelled(conn, "a\tb\\c\\d\\x", "")},
		{"label (empty): zeek/njrat/labeled-conn.log", "labeled-conn", []string{
			fields + "\tlabel\tdetailedlabel",
			row + "\tBackground\t(empty)",
		}, labelled(conn, "Background", "")},
		{
			"IoT-23: blanks before the labels, in the header too", "conn",
			[]string{
				fields + "\ttunnel_parents   label   detailed-label", row + "\t-   Malicious   PartOfAHorizontalPortScan",
			},
			labelled(conn, "Malicious", "PartOfAHorizontalPortScan"),
		},
		{"IoT-23: no detail", "conn", []string{
			fields + "\ttunnel_parents   label   detailed-label", row + "\t(empty)   Benign   -",
		}, labelled(conn, "Benign", "")},
		{"blanks before the labels in the row only", "conn", []string{
			fields + "\ttunnel_parents\tlabel\tdetailedlabel", row + "\t-   Malicious   CC",
		}, labelled(conn, "Malicious", "CC")},
		{"all tabs became blanks", "conn", []string{strings.ReplaceAll(fields, "\t", "   "), blanks}, conn},
		{
			"two blanks within a value are no separator", "conn",
			[]string{fields + "\tlabel", row + "\ta  b"},
			labelled(conn, "a  b", ""),
		},
		{
			"blanks between values of JSON: parsers/json_with_all_fields", "conn",
			[]string{strings.NewReplacer(`":`, `": `, `,"`, `, "`).Replace(object)},
			conn,
		},
		{
			"number as text, text as number", "conn",
			[]string{
				strings.NewReplacer(`50000`, `"50000"`, `443`, `443.0`, `1700000000.5`, `"1700000000.5"`, `"C1"`, `17`).Replace(object),
			},
			with(func(f *flow.Flow) { f.UID = "17" }),
		},
		{"time with exponent", "conn", []string{strings.Replace(object, "1700000000.5", "1.7000000005e9", 1)}, conn},
		{"ISO 8601", "conn", []string{strings.Replace(object, "1700000000.5", `"2023-11-14T22:13:20.500000Z"`, 1)}, conn},
		{
			"@timestamp where ts is missing", "conn",
			[]string{strings.Replace(object, `"ts":1700000000.5`, `"@timestamp":"2023-11-14T23:13:20.5+01:00"`, 1)},
			conn,
		},
		{"ts goes before @timestamp, behind it", "conn", []string{`{"@timestamp":"2020-01-01T00:00:00Z",` + object[1:]}, conn},
		{
			"ts goes before @timestamp, before it", "conn",
			[]string{object[:len(object)-1] + `,"@timestamp":"rubbish"}`},
			conn,
		},
		{"renamed by a shipper: id_orig_h", "conn", []string{strings.ReplaceAll(object, "id.", "id_")}, conn},
		{"renamed by a shipper: orig_h", "conn", []string{strings.ReplaceAll(object, "id.", "")}, conn},
		{"nested id", "conn", []string{
			`{"id":{"orig_h":"10.0.0.1","orig_p":50000,"resp_h":"192.0.2.1","resp_p":443},"ts":1700000000.5,"uid":"C1","proto":"tcp","conn_state":"SF"}`,
		}, conn},
		{"nested things that are not used", "conn", []string{object[:len(object)-1] + `,"x":{"y":[{"z":[1,null]}]}}`}, conn},
		{"escapes in a key and in a value", "conn", []string{
			strings.NewReplacer(`"uid"`, `"\u0075id"`, `"C1"`, `"C\u0031"`).Replace(object),
		}, conn},
		{"null, - and (empty) are no values", "conn", []string{
			object[:len(object)-1] + `,"duration":null,"orig_bytes":"-","history":"(empty)","resp_bytes":"","vlan":null}`,
		}, conn},
		{"the last of two equal keys counts", "conn", []string{`{"uid":"C0","ts":5,` + object[1:]}, conn},
		{
			"_path says conn, the file says open_conn: parsers/json_with_all_fields", "open_conn",
			[]string{object[:len(object)-1] + `,"_path":"conn"}`},
			with(func(f *flow.Flow) { f.Open = true }),
		},
		{
			"_path of another log does not inherit the file's open", "open_dns",
			[]string{object[:len(object)-1] + `,"_path":"conn"}`},
			conn,
		},
		{
			"#path says conn, the file says open_conn: parsers/open_conns", "open_conn",
			[]string{"#path\tconn", fields, row},
			with(func(f *flow.Flow) { f.Open = true }),
		},
		{"@stream of something else", "conn", []string{object[:len(object)-1] + `,"@stream":"stdout"}`}, conn},
		{"the first name of a log counts", "", []string{
			`{"@path":"conn","_path":"dns",` + object[1:],
		}, conn},
		{
			"times start at 0: zeek/njrat", "conn",
			[]string{strings.Replace(object, "1700000000.5", "0", 1)},
			with(func(f *flow.Flow) { f.Time = 0 }),
		},
		{
			"float noise in times: zeek/test9-mixed", "conn",
			[]string{object[:len(object)-1] + `,"duration":0.09628199999999865}`},
			with(func(f *flow.Flow) { f.Duration = 96281999 }),
		},
		{
			"unknown transport", "conn",
			[]string{strings.Replace(object, "tcp", "unknown_transport", 1)},
			with(func(f *flow.Flow) { f.Proto = flow.ProtoUnknown }),
		},
		{
			"unknown transport with its number", "conn",
			[]string{`{"ip_proto":47,` + strings.Replace(object, "tcp", "unknown_transport", 1)[1:]},
			with(func(f *flow.Flow) { f.Proto = flow.GRE }),
		},
		{"IPv4 in IPv6 clothes", "conn", []string{strings.Replace(object, "10.0.0.1", "::ffff:10.0.0.1", 1)}, conn},
		{
			"no ports", "conn",
			[]string{
				strings.Replace(object, `"id.orig_p":50000,"id.resp_p":443,`, "", 1),
				`{"ts":1700000000.5,"uid":"C1","id.orig_h":"10.0.0.1","id.resp_h":"192.0.2.1","proto":"tcp","conn_state":"SF"}`,
			},
			with(func(f *flow.Flow) { f.SrcPort, f.DstPort, f.HasPorts = 0, 0, false }),
		},
		{
			"no state", "conn",
			[]string{strings.Replace(object, `,"conn_state":"SF"`, "", 1)},
			with(func(f *flow.Flow) { f.RawState, f.State = "", flow.NotEstablished }),
		},
		{
			"NUL and broken UTF-8 in a value", "conn",
			[]string{strings.Replace(object, "C1", "C\x00\xff", 1)},
			with(func(f *flow.Flow) { f.UID = "C\x00\xff" }),
		},
		{"a JSON record below a header of columns", "conn", []string{fields, object}, conn},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := decode(New(c.log), c.lines...)
			if err != nil {
				t.Fatal(err)
			}
			if s := diff(&c.want, got); s != "" {
				t.Errorf("(-want +got)\n%s", s)
			}
		})
	}
}

// Old logs: what is in one place today was in others.
func TestOldSSL(t *testing.T) { // parsers/zat/ssl.log
	got, err := decode(New("ssl"),
		"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tversion\tserver_name\tsubject\tissuer_subject\tnot_valid_before\tnot_valid_after\tclient_issuer_subject\tcert_hash",
		"1379288668.148196\tC1\t10.0.0.1\t1033\t192.0.2.1\t443\tTLSv10\t-\tCN=*.x,O=Y\\, Inc.\tCN=ca\t1289368800.000000\t1384408799.000000\t-\t5976df")
	if err != nil {
		t.Fatal(err)
	}
	p := got.SSL
	if p.Subject != `CN=*.x,O=Y\, Inc.` || p.Issuer != "CN=ca" || p.NotBefore != 1289368800e9 || p.NotAfter != 1384408799e9 ||
		len(p.CertFPs) != 1 || p.CertFPs[0] != "5976df" {
		t.Errorf("got %+v", p)
	}
}

func TestDNSWithoutNames(t *testing.T) {
	d := New("dns")
	got, err := decode(d, `{"ts":1,"id.orig_h":"10.0.0.1","id.resp_h":"10.0.0.2","query":"x","qtype":65,"qclass":1,"rcode":3,"answers":"192.0.2.1"}`)
	if err != nil {
		t.Fatal(err)
	}
	if p := got.DNS; p.QType != "65" || p.RCode != "NXDOMAIN" || !p.Response || len(p.Answers) != 1 {
		t.Errorf("got %+v", p)
	}
	got, err = decode(d, `{"ts":1,"id.orig_h":"10.0.0.1","id.resp_h":"10.0.0.2","query":"x","qtype_name":"A","qtype":1}`)
	if err != nil {
		t.Fatal(err)
	}
	if p := got.DNS; p.QType != "A" || p.Response {
		t.Errorf("got %+v", p)
	}
}

func TestResponseCodes(t *testing.T) {
	for code, want := range map[string]string{
		"0": "NOERROR", "1": "FORMERR", "2": "SERVFAIL", "3": "NXDOMAIN", "4": "NOTIMP",
		"5": "REFUSED", "16": "16",
	} {
		if got := rcodeName(code); got != want {
			t.Errorf("rcodeName(%q) = %q", code, got)
		}
	}
}

// Zeek 5.1 logs both the hosts and the connection of a file.
func TestFileWithHostsAndConnection(t *testing.T) {
	const ends = `"id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":80,"seen_bytes":1`
	for hosts, want := range map[string]uint16{ // the sender's port
		`"tx_hosts":["192.0.2.1"],"rx_hosts":["10.0.0.1"]`: 80,
		`"tx_hosts":["10.0.0.1"],"rx_hosts":["192.0.2.1"]`: 50000,
		`"tx_hosts":["192.0.2.7"],"rx_hosts":["10.0.0.1"]`: 0,
	} {
		got, err := decode(New("files"), `{"ts":1,"fuid":"F1",`+hosts+`,`+ends+`}`)
		if err != nil {
			t.Fatal(err)
		}
		if got.SrcPort != want || got.HasPorts != (want != 0) {
			t.Errorf("%s: %v:%d to %v:%d", hosts, got.Src, got.SrcPort, got.Dst, got.DstPort)
		}
	}
}

// An unset element keeps the lists parallel.
func TestUnsetElements(t *testing.T) {
	got, err := decode(New("dns"),
		"#fields\tts\tid.orig_h\tid.resp_h\tquery\tanswers\tTTLs", "1\t10.0.0.1\t10.0.0.2\tx\ta,-,b\\x2cc\t1.0,-,3.0")
	if err != nil {
		t.Fatal(err)
	}
	if p := got.DNS; len(p.Answers) != 3 || p.Answers[1] != "" || p.Answers[2] != "b,c" || p.TTLs[1] != 0 || p.TTLs[2] != 3 {
		t.Errorf("got %q %v", p.Answers, p.TTLs)
	}
}

func TestHeaderLines(t *testing.T) {
	d := New("conn")
	for line, state := range map[string]bool{
		"": false, "   ": false, "\t": false, "\r": false, "#": false, "# a comment": false,
		"#close\t2020-01-01-00-00-00": false, "#open\t2020": false, "#types\ttime": false,
		`#separator \x09`: true, "\t#separator \\x09": true, "#set_separator\t,": true, "#empty_field\t(empty)": true,
		"#unset_field\t-": true, "#path\tconn": true, fields: true,
	} {
		if got := d.IsHeader([]byte(line)); got != state {
			t.Errorf("IsHeader(%q) = %v", line, got)
		}
		if _, err := decode(d, line); err != flow.ErrHeader {
			t.Errorf("Decode(%q): %v, want ErrHeader", line, err)
		}
	}
	for _, line := range []string{row, object} {
		if d.IsHeader([]byte(line)) {
			t.Errorf("IsHeader(%q) = true", line)
		}
	}
}

// Going on in the middle of a log: the latest of each directive is enough.
func TestResume(t *testing.T) {
	d := New("")
	var state []string
	for _, l := range []string{
		`#separator \x2c`, "#set_separator,;", "#empty_field,(empty)", "#unset_field,-", "#path,dns",
		"#open,2020", "#fields,ts,id.orig_h,id.resp_h,query,answers",
	} {
		if d.IsHeader([]byte(l)) {
			state = append(state, l)
		}
		decode(d, l)
	}
	line := "1,10.0.0.1,10.0.0.2,x,a;b"
	want, err := decode(d, line)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(New(""), append(state, line)...)
	if err != nil {
		t.Fatal(err)
	}
	if s := diff(want, got); s != "" || len(got.DNS.Answers) != 2 {
		t.Errorf("(-want +got)\n%s", s)
	}
}

func TestIgnored(t *testing.T) {
	for _, c := range []struct {
		log   string
		lines []string
	}{
		{"stats", []string{`{"ts":1575414056.144786,"peer":"zeek","mem":86}`}},
		{"stats", []string{"#path\tstats", "#fields\tts\tpeer", "1\tzeek"}},
		{"loaded_scripts", []string{`{"name":"  /usr/share/zeek/base/init-bare.zeek"}`}},
		{"loaded_scripts", []string{"#fields\tname", "  /usr/share/zeek/base/init-bare.zeek"}},
		{"", []string{`{"_path":"capture_loss","ts":1}`}},
		{"", []string{`{"ts":1,"_path":"reporter","x":{"y":1}}`}},
		{"", []string{`{"_path":"conn_red",` + object[1:]}}, // a site's own log is not conn
		{"conn", []string{`{"_path":"ocsp",` + object[1:]}},
		{"conn", []string{"#path\tpe", "#fields\tts\tid", "1\tF1"}},
		{"conn", []string{"#path\tsites_own", fields, row}},
	} {
		if _, err := decode(New(c.log), c.lines...); err != flow.ErrIgnored {
			t.Errorf("%q %q: %v, want ErrIgnored", c.log, c.lines, err)
		}
	}
}

func TestFailure(t *testing.T) {
	long := `{"x":"` + strings.Repeat("a", maxLine) + `"}`
	deep := `{"x":` + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1) + "}"
	replace := func(old, new string) string {
		if !strings.Contains(object, old) {
			t.Fatalf("test record has no %s", old)
		}
		return strings.Replace(object, old, new, 1)
	}
	column := func(n int, v string) string {
		c := strings.Split(row, "\t")
		c[n] = v
		return strings.Join(c, "\t")
	}
	for _, c := range []struct {
		name   string
		log    string
		header []string
		line   string
		field  string
		want   error
	}{
		{"text: parsers/text_file", "conn", nil, "Lorem ipsum dolor sit amet", "", flow.ErrNotRecord},
		{"array", "conn", nil, "[1,2]", "", flow.ErrNotRecord},
		{"no header: parsers/truncated/conn_top.log", "conn", nil, row, "", flow.ErrNoHeader},
		{"header began anew", "conn", []string{fields, `#separator \x09`}, row, "", flow.ErrNoHeader},
		{"cut line: parsers/truncated/conn.log", "conn", []string{fields}, row[:len(row)-8], "", flow.ErrColumns},
		{"too many columns", "conn", []string{fields}, row + "\tx", "", flow.ErrColumns},
		{"too many by blanks", "conn", []string{fields + "\tlabel"}, row + "   a   b", "", flow.ErrColumns},
		{"text among columns", "conn", []string{fields}, "Lorem ipsum", "", flow.ErrColumns},
		{"cut record: parsers/truncated/conn_json.log", "conn", nil, object[:len(object)-9], "", flow.ErrJSON},
		{"two records on a line", "conn", nil, object + object, "", flow.ErrJSON},
		{"port: parsers/truncated/conn_json.log", "conn", nil, replace("50000", "93145"), "id.orig_p", flow.ErrPort},
		{"port, columns", "conn", []string{fields}, column(3, "93145"), "id.orig_p", flow.ErrPort},
		{"negative port", "conn", nil, replace("50000", "-1"), "id.orig_p", flow.ErrPort},
		{"port with a fraction", "conn", nil, replace("50000", "80.5"), "id.orig_p", flow.ErrPort},
		{"address", "conn", nil, replace("10.0.0.1", "10.0.0.256"), "id.orig_h", flow.ErrAddress},
		{"address, columns", "conn", []string{fields}, column(4, "host"), "id.resp_h", flow.ErrAddress},
		{"address as a number", "conn", nil, replace(`"10.0.0.1"`, "167772161"), "id.orig_h", flow.ErrAddress},
		{"address as a list", "conn", nil, replace(`"10.0.0.1"`, `["10.0.0.1"]`), "id.orig_h", flow.ErrAddress},
		{"no originator", "conn", nil, replace(`"id.orig_h":"10.0.0.1",`, ""), "id.orig_h", flow.ErrMissing},
		{"no responder", "conn", nil, replace(`"192.0.2.1"`, "null"), "id.resp_h", flow.ErrMissing},
		{"no responder, columns", "conn", []string{fields}, column(4, "-"), "id.resp_h", flow.ErrMissing},
		{"no time", "conn", nil, replace(`"ts":1700000000.5,`, ""), "ts", flow.ErrMissing},
		{"no time, columns", "conn", []string{fields}, column(0, "-"), "ts", flow.ErrMissing},
		{"negative time", "conn", nil, replace("1700000000.5", "-5"), "ts", flow.ErrTime},
		{"time in milliseconds", "conn", nil, replace("1700000000.5", "1700000000500"), "ts", flow.ErrTime},
		{"far future", "conn", []string{fields}, column(0, "4102444801"), "ts", flow.ErrTime},
		{"time as text", "conn", nil, replace("1700000000.5", `"yesterday"`), "ts", flow.ErrTime},
		{"time as a list", "conn", nil, replace("1700000000.5", "[1]"), "ts", flow.ErrTime},
		{"not a number", "conn", nil, replace("1700000000.5", "nan"), "ts", flow.ErrTime},
		{"@timestamp", "conn", nil, replace(`"ts":1700000000.5`, `"@timestamp":"x"`), "@timestamp", flow.ErrTime},
		{"negative duration", "conn", nil, replace(`"uid":"C1"`, `"duration":-0.5`), "duration", flow.ErrNumber},
		{"negative bytes", "conn", nil, replace(`"uid":"C1"`, `"orig_bytes":-1`), "orig_bytes", flow.ErrNumber},
		{"bytes beyond 63 bits", "conn", nil, replace(`"uid":"C1"`, `"orig_bytes":18446744073709551615`), "orig_bytes", flow.ErrNumber},
		{"bytes as truth value", "conn", nil, replace(`"uid":"C1"`, `"orig_bytes":true`), "orig_bytes", flow.ErrNumber},
		{"truth value as text", "conn", nil, replace(`"uid":"C1"`, `"local_orig":"maybe"`), "local_orig", flow.ErrNotRecord},
		{"text as a list", "conn", nil, replace(`"C1"`, `["C1"]`), "uid", flow.ErrNotRecord},
		{"list in a list", "dns", nil, `{"ts":1,"answers":[["a"]]}`, "answers", flow.ErrNotRecord},
		{"long list", "dns", nil, `{"ts":1,"answers":["a"` + strings.Repeat(`,"a"`, maxList) + `]}`, "answers", flow.ErrTooLong},
		{"long list, columns", "dns", []string{"#fields\tts\tanswers"}, "1\ta" + strings.Repeat(",a", maxList), "answers", flow.ErrTooLong},
		{"byte count as a list", "conn", nil, replace(`"uid":"C1"`, `"orig_bytes":[1]`), "orig_bytes", flow.ErrNumber},
		{"port as a list", "conn", nil, replace("50000", "[50000]"), "id.orig_p", flow.ErrPort},
		{"VLAN beyond 16 bits", "conn", nil, replace(`"uid":"C1"`, `"vlan":65536`), "vlan", flow.ErrNumber},
		{"protocol number beyond 8 bits", "conn", nil, replace(`"uid":"C1"`, `"ip_proto":256`), "ip_proto", flow.ErrNumber},
		{"depth", "http", nil, `{"ts":1,"trans_depth":"x"}`, "trans_depth", flow.ErrNumber},
		{"data channel", "ftp", nil, `{"ts":1,"data_channel":{"resp_p":70000}}`, "data_channel.resp_p", flow.ErrPort},
		{"data address", "ftp", nil, `{"ts":1,"data_channel":{"resp_h":"x"}}`, "data_channel.resp_h", flow.ErrAddress},
		{"certificate's time", "x509", nil, `{"ts":1,"certificate":{"not_valid_after":"x"}}`, "certificate.not_valid_after", flow.ErrTime},
		{"unfinished escape", "conn", nil, `{"ts":1,"uid":"\`, "", flow.ErrJSON},
		{"unfinished list", "dns", nil, `{"ts":1,"answers":["a\`, "", flow.ErrJSON},
		{"unfinished number", "conn", nil, `{"ts":1`, "", flow.ErrJSON},
		{"sign without number", "conn", nil, `{"ts":-}`, "", flow.ErrJSON},
		{"TTL", "dns", nil, `{"ts":1,"TTLs":[-1]}`, "TTLs", flow.ErrNumber},
		{"sender", "files", nil, `{"ts":1,"tx_hosts":["x"]}`, "tx_hosts", flow.ErrAddress},
		{"empty object", "conn", nil, `{}`, "ts", flow.ErrMissing},
		{"empty object of nothing known", "", nil, `{}`, "", flow.ErrUnknownKind},
		{"nobody's record: zeek/isc-2021-10/email_alerts.log", "", nil, `{"detection_ts":"2021","name":"x"}`, "", flow.ErrUnknownKind},
		{"nobody's columns", "", []string{"#fields\ta\tb"}, "1\t2", "", flow.ErrUnknownKind},
		{"software of no host", "software", nil, `{"ts":1,"name":"x"}`, "host", flow.ErrMissing},
		{"dhcp of nobody", "dhcp", nil, `{"ts":1}`, "client_addr", flow.ErrMissing},
		{"known device without address", "known_devices", nil, `{"ts":1}`, "host", flow.ErrMissing},
		{"query of nobody", "dns", nil, `{"ts":1,"query":"x"}`, "id.orig_h", flow.ErrMissing},
		{"nested deep", "conn", nil, deep, "", flow.ErrTooDeep},
		{"nested deep and cut", "conn", nil, strings.Repeat(`{"a":`, 100000), "", flow.ErrTooDeep},
		{"long line", "conn", nil, long, "", flow.ErrTooLong},
		{"many values", "conn", nil, `{"x":[0` + strings.Repeat(",0", maxValues) + "]}", "", flow.ErrTooLong},
		{"bad separator", "conn", nil, "#separator " + strings.Repeat("x", 65), "#separator", flow.ErrBadHeader},
		{"empty set separator", "conn", nil, "#set_separator\t", "#set_separator", flow.ErrBadHeader},
		{"many columns", "conn", nil, "#fields" + strings.Repeat("\tx", maxColumns+1), "#fields", flow.ErrBadHeader},
		{"no columns", "conn", nil, "#fields\t", "#fields", flow.ErrBadHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := New(c.log)
			for _, h := range c.header {
				decode(d, h)
			}
			for range 2 { // the second time on what the first left
				_, err := decode(d, c.line)
				var se *flow.SyntaxError
				if !errors.As(err, &se) || !errors.Is(err, c.want) || se.Field != c.field {
					t.Errorf("got %v, want %v in field %q", err, c.want, c.field)
				} else if len(se.Value) > 64 {
					t.Errorf("value of %d bytes", len(se.Value))
				}
			}
			// It must not have left anything behind.
			want := plainConn()
			got, err := decode(d, `{"_path":"conn",`+object[1:])
			if err != nil {
				t.Fatal(err)
			}
			if s := diff(&want, got); s != "" {
				t.Errorf("record after the failure: (-want +got)\n%s", s)
			}
		})
	}
}

// A value that is quoted in an error must outlive the line.
func TestErrorOwnsItsValue(t *testing.T) {
	line := []byte(strings.Replace(object, "10.0.0.1", "no-address", 1))
	var f flow.Flow
	err := New("conn").Decode(&f, line)
	clear(line)
	if err == nil || !strings.Contains(err.Error(), `"no-address"`) {
		t.Errorf("got %v", err)
	}
}

// What careful decoding holds must survive later records: they share a batch.
func TestHeldTextSurvives(t *testing.T) {
	d := New("conn")
	var a, b flow.Flow
	line := []byte(strings.Replace(object, "C1", `C\u0031`, 1))
	if err := d.Decode(&a, line); err != nil {
		t.Fatal(err)
	}
	clear(line)
	if err := d.Decode(&b, []byte(strings.Replace(object, "C1", `D\u0032`, 1))); err != nil {
		t.Fatal(err)
	}
	if a.UID != "C1" || b.UID != "D2" {
		t.Errorf("got %q and %q", a.UID, b.UID)
	}
}

// One decoder, one reused record, logs mixed in one stream.
func TestMixedStream(t *testing.T) {
	for _, where := range []string{"front", "back"} {
		d := New("")
		var f flow.Flow
		for range 3 {
			for _, c := range kindCases {
				line := `{"_path":"` + c.log + `",` + c.line[1:]
				if where == "back" {
					line = c.line[:len(c.line)-1] + `,"_path":"` + c.log + `"}`
				}
				if err := d.Decode(&f, []byte(line)); err != nil {
					t.Fatalf("%s: %v", c.log, err)
				}
				if s := diff(&c.want, &f); s != "" {
					t.Fatalf("%s: (-want +got)\n%s", c.log, s)
				}
			}
		}
	}
}
