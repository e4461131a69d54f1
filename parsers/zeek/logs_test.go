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
		"conn__2020-07-16-09-43-10__2020-07-16-10-43-10__.log": "conn", "dce_rpc__2020-07-16-09-43-10__2020-07-16-10-43-10__.log.gz": "dce_rpc",
		"conn__2020-07-16-09-43-10__2020-07-16-10-43-10__log_suffix=logger-1,pid=4711__.log": "conn",
		"conn.15:48:23-16:00:00-logger-1.log.gz":                                             "conn", "known_hosts__1__2__.log": "known_hosts", "/a__b.log/dns.log": "dns",
		"lookup.log": "lookup", "lookup.2021-10-10-12-00-00.log.gz": "lookup", "stats.log": "stats", "loaded_scripts.log": "loaded_scripts",

		"": "", "conn": "", "conn.csv": "", "conn.txt": "", "conn-summary.log": "", "conn_json.log": "", "eve.json": "",
		"email_alerts.log": "", "ORIGINALdns.log": "", ".log": "", "log": "", "conn.log/": "", "syslog.1": "", "labels.config": "",
		"open_stats.log": "", "2020.log": "", "_2020.log": "", "Conn.log": "", "catalog.gz": "", "conn.blog.gz": "",
		"conn__a": "", "__.log": "", "test__1__2__.log": "", "__conn__.log": "",
	} {
		got, ok := LogName(name)
		if got != want || ok != (want != "") {
			t.Errorf("LogName(%q) = %q, %v; want %q", name, got, ok, want)
		}
	}
}

func TestWriter(t *testing.T) {
	for name, want := range map[string]string{
		"conn.15:48:23-16:00:00-logger-1.log.gz": "logger-1", "/a.b/conn.15:48:23-16:00:00-logger.west.log": "logger.west",
		"conn__2020-07-16-09-43-10__2020-07-16-10-43-10__log_suffix=logger-1__.log":           "logger-1",
		"conn__2020-07-16-09-43-10__2020-07-16-10-43-10__pid=1,log_suffix=logger-2,x=y__.log": "logger-2",
		"conn__2020-07-16-09-43-10__2020-07-16-10-43-10__log_suffix=logger-2,pid=4711__.log":  "logger-2",

		"": "", "conn.log": "", "conn.15:48:23-16:00:00.log.gz": "", "conn.15:48:23-16:00:00-1.log.gz": "", "conn.15:48:23-current.log": "",
		"conn.2021-10-10-12-00-00.log.gz": "", "conn-21-10-10_12.00.00.log": "", "conn.log.labeled": "", "conn.log.gz": "", "conn.exercise-1.log": "",
		"conn_20200101_12:00:00-13:00:00+0000.log.gz": "", "conn__2020-07-16-09-43-10__2020-07-16-10-43-10__.log": "", "open_conn.17_32_32-18_00_00.log.gz": "",
		"conn.2020-01-01T00:00:00Z.log": "", "conn.1-a.log": "",
	} {
		if got := Writer(name); got != want {
			t.Errorf("Writer(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestColumns(t *testing.T) {
	for head, want := range map[string]string{
		"#separator \\x09\n#set_separator\t,\n#path\tconn\n#open\t2020\n#fields\tts\tuid\tid.orig_h\n#types\ttime\n1\tC\t10.0.0.1\n": "ts uid id.orig_h",
		"\ufeff#separator ,\r\n#fields,ts,uid\r\n": "ts uid", "#fields\tts\tuid\n": "ts uid",
		"#separator \\x09\n#fields\tts\tui": "", "": "", "{\"ts\":1}\n": "", "1.5\tC\n#fields\tts\n": "", "# a list\n": "", "#separator #\n#fields\tts\n": "",
	} {
		if got := strings.Join(Columns([]byte(head)), " "); got != want {
			t.Errorf("Columns(%q) = %q, want %q", head, got, want)
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
