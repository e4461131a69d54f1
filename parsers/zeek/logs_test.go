package zeek

import (
	"strings"
	"testing"
)

func TestLogName(t *testing.T) {
	for name, want := range map[string]string{
		"conn.log": "conn", "conn.log.gz": "conn", "conn.log.zst": "conn", "/a/b.c/conn.log": "conn",
		"conn.2021-10-10-12-00-00.log.gz": "conn", "conn.15:00:00-16:00:00.log.gz": "conn", // parsers/proxy_rolling
		"open_conn.17_32_32-18_00_00.log.gz": "open_conn", "open_ssl.log": "open_ssl", // parsers/open_sni
		"http.log.corrupt.gz": "http", "conn.log.labeled": "conn", "labeled-conn.log": "conn", "conn.log.1": "conn",
		"conn_20200101.log": "conn", "dhcp_002.log": "dhcp", "conn-21-10-10_12.00.00.log": "conn",
		"conn_20200101_12:00:00-13:00:00+0000.log.gz": "conn", "smb_files_2020.log": "smb_files",
		"known_certs.16:02:19-17:00:00.log.gz": "known_certs", "dce_rpc.log": "dce_rpc", "x509.log": "x509",
		"lookup.log": "lookup", "lookup.2021-10-10-12-00-00.log.gz": "lookup", "stats.log": "stats", "loaded_scripts.log": "loaded_scripts",

		"": "", "conn": "", "conn.csv": "", "conn.txt": "", "conn-summary.log": "", "conn_json.log": "", "eve.json": "",
		"email_alerts.log": "", "ORIGINALdns.log": "", ".log": "", "log": "", "conn.log/": "", "syslog.1": "", "labels.config": "",
		"open_stats.log": "", "2020.log": "", "_2020.log": "", "Conn.log": "", "catalog.gz": "", "conn.blog.gz": "",
	} {
		got, ok := LogName(name)
		if got != want || ok != (want != "") {
			t.Errorf("LogName(%q) = %q, %v; want %q", name, got, ok, want)
		}
	}
}

func TestSniff(t *testing.T) {
	for name, c := range map[string]struct {
		head string
		want bool
	}{
		"header":                            {"#separator \\x09\n#set_separator\t,\n", true},
		"header behind a blank":             {"\t#separator \\x09\n", true}, // zeek/test10-mixed/conn.log
		"header behind byte order mark":     {"\ufeff#separator \\x09\r\n", true},
		"header behind blank lines":         {"\n\n  \n" + fields, true},
		"fields alone":                      {fields + "\n" + row, true},
		"columns without header":            {row + "\n" + row, false}, // parsers/truncated/conn_top.log
		"conn":                              {object, true},
		"conn, cut":                         {object[:90], true},
		"conn behind a cut line":            {object[40:] + "\n" + object, true},
		"mixed stream":                      {`{"_path":"stats","ts":1}`, true},
		"nested id":                         {`{"@timestamp":"2020-01-01T00:00:00Z","id":{"orig_h":"10.0.0.1"}}`, true},
		"renamed":                           {`{"ts":1,"id_orig_h":"10.0.0.1"}`, true},
		"of no connection":                  {`{"ts":1,"note":"x","msg":"y"}`, true},
		"escaped quote":                     {`{"msg":"\",\"event_type\":1","ts":1,"uid":"C"}`, true},
		"eve.json":                          {`{"timestamp":"2020","flow_id":1,"event_type":"flow"}`, false},
		"eve.json with ts":                  {`{"ts":1,"uid":"C","event_type":"flow"}`, false},
		"some program's log":                {`{"ts":1700000000.1,"level":"info","msg":"started"}`, false},
		"id in some program's log":          {`{"ts":1700000000.1,"id":"7","msg":"started"}`, false},
		"other JSON":                        {`{"detection_ts":"2021-10-21T11:08:00+0000","type":"email"}`, false},
		"text":                              {"Lorem ipsum dolor\n\nsit amet", false}, // parsers/text_file
		"IIS":                               {"#Software: Microsoft IIS\n#Fields: date time\n", false},
		"comments":                          {"# a list\n#of things\n1.2.3.4\n", false},
		"argus":                             {"StartTime,Dur,Proto,SrcAddr\n2011/08/10,1,tcp,1.2.3.4\n", false},
		"empty":                             {"", false},
		"binary":                            {"\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00", false},
		"unfinished string":                 {`{"ts`, false},
		"far too late":                      {strings.Repeat("x\n", 100) + object, false},
		"names of Zeek's fields as values":  {`{"ts":1,"a":"uid","b":"id.orig_h"}`, false},
		"names of Zeek's fields one deeper": {`{"ts":1,"a":{"uid":1}}`, false},
	} {
		if got := Sniff([]byte(c.head)); got != c.want {
			t.Errorf("%s: Sniff = %v", name, got)
		}
	}
}

// The bits of marks and the positions of a schema are small integers.
func TestTables(t *testing.T) {
	if len(markNames) > 64 {
		t.Errorf("%d marks do not fit", len(markNames))
	}
	if markOf("ts") != hasTime || markOf("id.orig_p") != hasSrcPort || markOf("id.resp_p") != hasDstPort {
		t.Error("constants and markNames disagree")
	}
	for _, g := range guesses {
		if g.need == 0 || g.log == nil {
			t.Errorf("guess %x %v", g.need, g.log)
		}
	}
	for n, l := range logs {
		if l.name != n || !l.used && l.kind != 0 {
			t.Errorf("log %q: %q, %v", n, l.name, l.kind)
		}
		for i := range l.schema.fields {
			f := &l.schema.fields[i]
			if l.schema.lookup(f.name) != f {
				t.Errorf("%s: field %q is not found", n, f.name)
			}
		}
		for _, missing := range []string{"", "x", "tss", "id.orig_hh"} {
			if l.schema.lookup(missing) != nil {
				t.Errorf("%s: field %q is found", n, missing)
			}
		}
	}
}
