package proto

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// names returns a list of n names with a letter in front of their numbers.
func names(letter string, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s%d", letter, i)
	}
	return b.String()
}

// TestSSHLists bounds what of the lists is compared, and compares once.
func TestSSHLists(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, tt := range map[string]struct{ client, server, want string }{
		"the client's first choice":      {"a,b,c", "c,b", "b"},
		"nothing in common":              {"a,b", "c,d", ""},
		"a name is not a part of one":    {"aes,a", "aes128,128", ""},
		"the last that counts":           {names("x", maxNames) + ",k", names("y", maxNames-1) + ",k", "k"},
		"one name too many":              {"k", names("y", maxNames) + ",k", ""},
		"at the end of what counts":      {"k", long[:maxNameList-3] + ",k," + long, "k"},
		"cut off":                        {"kk", long[:maxNameList-2] + ",kk," + long, ""},
		"one name without an end":        {"k," + long, long, ""},
		"behind what counts":             {long + ",k", "k", ""},
		"empty names":                    {strings.Repeat(",", 6000) + "k", strings.Repeat(",", 30000) + "k", ""},
		"forty kilobytes of other names": {strings.Repeat("a,", 5000), strings.Repeat("b,", 5000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			set, conn := NewSet(), new(sinkConn)
			a := set.newSSH(conn)
			a.Data(Orig, []byte("SSH-2.0-a\r\n"), 1)
			a.Data(Resp, []byte("SSH-2.0-b\r\n"), 1)
			a.Data(Orig, []byte(kexInit("k", "h", "c", "c", "m", "m", "none", tt.client)), 2)
			a.Data(Resp, []byte(kexInit("k", "h", "c", "c", "m", "m", "none", tt.server)), 3)
			if !a.side[Orig].hasKex || !a.side[Resp].hasKex {
				t.Fatal("the lists were not taken")
			}
			clear(a.side[Resp].kex) // what was found is not looked for again
			if got := string(a.agreed(listZipIn)); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if got := string(a.agreed(listCipherOut)); got != "c" {
				t.Errorf("cipher %q", got)
			}
		})
	}
}

// TestReceived finds the sender in a Received header, and does not look for it
// for ever.
func TestReceived(t *testing.T) {
	long := strings.Repeat("x", maxBracketed)
	for header, want := range map[string]string{
		"from a (b [192.0.2.1])":                                      "192.0.2.1",
		"from [192.0.2.1] (192.0.2.2) [192.0.2.3]":                    "192.0.2.2",
		"from a ([IPv6:2001:db8:1111:2222:3333:4444:5555:6666%eth0])": "2001:db8:1111:2222:3333:4444:5555:6666",
		"from a (" + long + ") [192.0.2.1]":                           "192.0.2.1",
		"from a (no end 192.0.2.1":                                    "invalid IP",
		strings.Repeat("(", maxBrackets-1) + "[192.0.2.1]":            "192.0.2.1",
		strings.Repeat("(", maxBrackets) + "[192.0.2.1]":              "invalid IP",
		strings.Repeat("("+long+")", maxBrackets-1) + "[192.0.2.1] )": "192.0.2.1",
		strings.Repeat("(", 16000) + ")":                              "invalid IP",
	} {
		if addr, _ := lastAddress([]byte(header)); addr.String() != want {
			t.Errorf("%.60q: %v, want %s", header, addr, want)
		}
	}
}

// TestFTPFolder has the server say again and again that the folder was changed.
func TestFTPFolder(t *testing.T) {
	tc := play(21, 0, s("220 ftp\r\n"), c("USER a\r\n"), s("230 ok\r\n"), c("PWD\r\n"), s("257 \"/top/./x/..\" is it\r\n"),
		c("CWD sub/\r\n"), s("150 wait\r\n"+strings.Repeat("250 ok\r\n", 1000)), c("CWD ../other\r\n"), s("250 ok\r\n"), c("RETR f\r\n"), s("226 ok\r\n"))
	got := of(tc, flow.FTP, func(f *flow.Flow) *flow.FTPPart { return f.FTP })
	if len(got) != 1 || got[0].Arg != "ftp://10.0.0.2/top/other/f" {
		t.Errorf("%+v", got)
	}
}

// TestLineEnd finds the first CR or LF wherever it stands.
func TestLineEnd(t *testing.T) {
	for n := range 2000 {
		b := bytes.Repeat([]byte("x"), n)
		for _, end := range []string{"", "\r", "\n", "\r\n", "\n\r", "xxx\r\n" + strings.Repeat("x", 500) + "\n"} {
			all := append(bytes.Clone(b), end...)
			want := bytes.IndexAny(all, "\r\n")
			if want < 0 {
				want = len(all)
			}
			if got := lineEnd(all); got != want {
				t.Fatalf("%d bytes and %q: %d, want %d", n, end, got, want)
			}
		}
	}
}

// TestDNSRepeats bounds what a message makes of names that stand in it once.
func TestDNSRepeats(t *testing.T) {
	q := dnsMessage(1, 0x100, "www.example.com", 1)
	name := labels(strings.Repeat(strings.Repeat("\x01", 60)+".", 4) + "a")
	records := []string{rr(5, 30, name)}
	for range 400 {
		records = append(records, rr(5, 30, "\xc0\x2d")) // that of the first
	}
	got := dnsParts(udp(53, c(q), s(answered(q, 0, records...))))
	if len(got) != 1 {
		t.Fatalf("%d records", len(got))
	}
	text := 0
	for _, a := range got[0].Answers {
		text += len(a)
	}
	if n := len(got[0].Answers); n < 60 || n > 300 || text < maxText || text > maxText+1024 || got[0].Answers[n-1] != got[0].Answers[0] {
		t.Errorf("%d answers of %d bytes", n, text)
	}
}

// TestHeld has each analyzer say what it takes: more the more waits in it, and
// little once it is used again.
func TestHeld(t *testing.T) {
	for name, tt := range map[string]struct {
		port   uint16
		script []say
	}{
		"http":    {80, []say{c("GET /" + strings.Repeat("a", 20000))}},
		"tls":     {443, []say{c("\x16\x03\x03\x40\x00\x01\x00\xf0\x00" + strings.Repeat("a", 20000))}},
		"ssh":     {22, []say{c("SSH-2.0-a\r\n\x00\x00\x90\x00\x00\x14" + strings.Repeat("a", 20000))}},
		"smtp":    {25, []say{c("EHLO " + strings.Repeat("a", 20000))}},
		"ftp":     {21, []say{c("USER " + strings.Repeat("a", 20000))}},
		"dns":     {53, []say{c("\x60\x00" + strings.Repeat("\x00", 20000))}},
		"sniffer": {9999, []say{c("GET /" + strings.Repeat("a", 900))}},
		"socks":   {1080, []say{c("\x05\x01\x00"), s("\x05\x00"), c("\x05\x01\x00\x03" + strings.Repeat("\xff", 200))}},
	} {
		t.Run(name, func(t *testing.T) {
			set := NewSet()
			a := set.TCP(new(sinkConn), 40000, tt.port)
			empty, fed := a.Held(), 0
			for _, x := range tt.script {
				fed = len(x.b)
				a.Data(x.d, []byte(x.b), 1)
			}
			fed = min(fed, maxLine)
			if n := a.Held(); empty < 100 || n < empty+fed || n > 8<<10+4*fed {
				t.Errorf("%d bytes, %d when it was new, %d were fed", n, empty, fed)
			}
			a.End(2)
			set.Free(a)
			if n := set.TCP(new(sinkConn), 40000, tt.port).Held(); n > 4<<10 {
				t.Errorf("%d bytes when it is used again", n)
			}
		})
	}
}

// BenchmarkHostile is what costs most for its bytes, by protocol.
func BenchmarkHostile(b *testing.B) {
	list := func(letter string) string { return kexInit("k", "h", "c", "c", "m", "m", "none", names(letter, 6000)) }
	keys := packetSSH([]byte{sshNewKeys})
	ssh := []say{c("SSH-2.0-a\r\n"), s("SSH-2.0-b\r\n"), c(list("a") + keys), s(list("b") + keys), c("zzzz")}
	for range 200 {
		ssh = append(ssh, s("yyyy"))
	}
	chdir := []say{c("USER a\r\n"), s("230 ok\r\n"), c("CWD " + strings.Repeat("/a", 2000) + "\r\n"), s("250 ok\r\n")}
	for range 100 {
		chdir = append(chdir, c("CWD a\r\nRETR a\r\n"), s("250 ok\r\n226 ok\r\n"))
	}
	q := dnsMessage(1, 0x100, "a", 1)
	repeats := []string{rr(5, 30, labels(strings.Repeat(strings.Repeat("\x01", 60)+".", 4)+"a"))}
	for range 100 {
		repeats = append(repeats, rr(5, 30, "\xc0\x1f"))
	}
	for _, x := range []struct {
		name   string
		port   uint16
		script []say
	}{
		{"ssh-lists", 22, ssh},
		{"smtp-brackets", 25, []say{s("220 a\r\n"), c("EHLO a\r\n"), s("250 a\r\n"), c("MAIL FROM:<a@b>\r\n"), s("250 a\r\n"), c("DATA\r\n"), s("354 a\r\n"), c("Received: " + strings.Repeat("(", 16000) + ")\r\n\r\n")}},
		{"http-cr", 80, []say{c("GET / HTTP/1.1\r\n" + strings.Repeat("a\r", 30000))}},
		{"http-lf", 80, []say{c("GET / HTTP/1.1\r\n" + strings.Repeat("a\n", 30000))}},
		{"ftp-folders", 21, chdir},
	} {
		b.Run(x.name, func(b *testing.B) { bench(b, x.port, false, x.script...) })
	}
	b.Run("dns-repeats", func(b *testing.B) { bench(b, 53, true, c(q), s(answered(q, 0, repeats...))) })
}

// TestQUICPieces has a hello come in pieces, the last first.
func TestQUICPieces(t *testing.T) {
	hello := clientHello("0303", "", "1301", ext("0000", vec16("\x00"+vec16("example.com"))))
	var frames []string
	for i := 0; i < len(hello); i += 3 {
		frames = append([]string{crypto(i, hello[i:min(i+3, len(hello))])}, frames...)
	}
	if len(frames) > maxPieces {
		t.Fatalf("%d pieces", len(frames))
	}
	p := initial(t, quicV1, "12345678", 0, strings.Join(frames, ""))
	tc := udp(443, c(p))
	got := of(tc, flow.QUIC, func(f *flow.Flow) *flow.SSLPart { return f.SSL })
	if len(got) != 1 || got[0].ServerName != "example.com" {
		t.Errorf("%+v", got)
	}
}
