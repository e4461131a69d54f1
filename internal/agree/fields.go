package agree

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// field is one of a record that is compared.
type field struct {
	name string
	text func(f *flow.Flow) string
	near bool                    // times in ns, which may differ by sameStart
	of   func(z *flow.Flow) bool // says of which of Zeek's records it is compared; nil: of all
}

// compared is a log and how its records are compared.
type compared struct {
	name   string
	kind   flow.Kind
	conn   bool                        // the ends of the connection are part of what identifies a record
	timed  bool                        // and the start
	more   []func(f *flow.Flow) string // and these
	skip   func(f *flow.Flow) bool     // of either side; nil: none
	fields []field
}

// key returns what records of both sides must have in common.
func (l *compared) key(f *flow.Flow) string {
	var b []byte
	if l.conn {
		if l.timed {
			b = append(b, transport(f)+" "...) // the other logs do not say it
		}
		b = fmt.Appendf(b, "%s:%d > %s:%d", f.Src, f.SrcPort, f.Dst, f.DstPort)
	}
	for _, m := range l.more {
		b = append(b, ' ')
		b = strconv.AppendQuote(b, m(f))
	}
	return string(b)
}

// text is key for people.
func (l *compared) text(f *flow.Flow) string {
	return fmt.Sprintf("%d.%06d %s", f.Time/1e9, f.Time%1e9/1e3, strings.TrimSpace(l.key(f)))
}

// transport names what Zeek names in its logs; all else is one.
func transport(f *flow.Flow) string {
	switch f.Proto {
	case flow.TCP, flow.UDP, flow.ICMP:
		return f.Proto.String()
	case flow.ICMP6:
		return flow.ICMP.String()
	default:
		return "other"
	}
}

// sorted makes a list comparable whose order says nothing.
func sorted(l []string) string {
	l = slices.Clone(l)
	slices.Sort(l)
	return strings.Join(l, "|")
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func number[T int | int64 | uint16](n T) string { return strconv.FormatInt(int64(n), 10) }

func tri(t flow.Tri) string { return [...]string{"", "false", "true"}[t] }

// otherFile reports whether a file is none of those that the meter hashes:
// bodies of HTTP that are no text, pages, pictures and the like.
func otherFile(f *flow.Flow) bool {
	if f.Files.Source != "HTTP" || f.Files.MD5 == "" || f.Files.MIMEType == "" {
		return true
	}
	kind, sub, _ := strings.Cut(f.Files.MIMEType, "/")
	switch kind {
	case "image", "audio", "video":
		return true
	case "text":
		return !strings.HasPrefix(sub, "x-") && sub != "rtf"
	}
	return strings.HasPrefix(sub, "ocsp") || strings.HasPrefix(sub, "font") || sub == "javascript" || strings.HasSuffix(sub, "xml") || sub == "ogg"
}

// comparedLogs returns what is compared, in the order of the tables.
func comparedLogs() []compared {
	type F = flow.Flow
	query := func(z *F) bool { return z.DNS.QType != "" } // of an answer alone Zeek leaves the question out
	return []compared{
		{
			name: "conn", kind: flow.Conn, conn: true, timed: true,
			fields: []field{
				{name: "state", text: func(f *F) string { return f.RawState }},
				{name: "bytes", text: func(f *F) string { return number(f.OrigBytes) + "/" + number(f.RespBytes) }},
				{name: "packets", text: func(f *F) string { return number(f.OrigPkts) + "/" + number(f.RespPkts) }},
				{name: "ip_bytes", text: func(f *F) string { return number(f.OrigIPBytes) + "/" + number(f.RespIPBytes) }},
				{name: "history", text: func(f *F) string { return f.History }},
				{name: "service", text: func(f *F) string { return sorted(strings.Split(f.Service, ",")) }},
				{name: "duration", near: true, text: func(f *F) string { return number(f.Duration) }},
				{name: "missed", text: func(f *F) string { return number(f.MissedBytes) }},
				{name: "local", text: func(f *F) string { return tri(f.LocalOrig) + "/" + tri(f.LocalResp) }},
				{
					name: "macs", of: func(z *F) bool { return z.SrcMAC+z.DstMAC != "" },
					text: func(f *F) string { return f.SrcMAC + ">" + f.DstMAC },
				},
				{
					name: "vlans", of: func(z *F) bool { return z.VLAN != 0 },
					text: func(f *F) string { return number(f.VLAN) + "/" + number(f.InnerVLAN) },
				},
				{
					name: "community_id", of: func(z *F) bool { return z.CommunityID != "" },
					text: func(f *F) string { return f.CommunityID },
				},
			},
		},
		{
			name: "dns", kind: flow.DNS, conn: true, skip: func(f *F) bool { return f.DNS.Query == "" },
			more: []func(*F) string{func(f *F) string { return number(f.DNS.TransID) }, func(f *F) string { return f.DNS.Query }},
			fields: []field{
				{name: "qtype", of: query, text: func(f *F) string { return f.DNS.QType }},
				{name: "qclass", of: query, text: func(f *F) string { return f.DNS.QClass }},
				{name: "rcode", text: func(f *F) string { return f.DNS.RCode }},
				{name: "answers", text: func(f *F) string { return sorted(f.DNS.Answers) }},
				{name: "ttls", text: func(f *F) string { return fmt.Sprint(f.DNS.TTLs) }},
				{name: "rtt", near: true, text: func(f *F) string { return number(f.DNS.RTT) }},
				{name: "rejected", text: func(f *F) string { return tri(f.DNS.Reject) }},
			},
		},
		{
			name: "http", kind: flow.HTTP, conn: true,
			more: []func(*F) string{func(f *F) string { return number(f.HTTP.TransDepth) }},
			fields: []field{
				{name: "method", text: func(f *F) string { return f.HTTP.Method }},
				{name: "host", text: func(f *F) string { return f.HTTP.Host }},
				{name: "uri", text: func(f *F) string { return f.HTTP.URI }},
				{name: "status", text: func(f *F) string { return number(f.HTTP.StatusCode) + " " + f.HTTP.StatusMsg }},
				{name: "user_agent", text: func(f *F) string { return f.HTTP.UserAgent }},
				{name: "referrer", text: func(f *F) string { return f.HTTP.Referrer }},
				{name: "request_len", text: func(f *F) string { return number(f.HTTP.RequestLen) }},
				{name: "response_len", text: func(f *F) string { return number(f.HTTP.ResponseLen) }},
				{name: "resp_mime_types", text: func(f *F) string { return sorted(f.HTTP.RespMIMETypes) }},
				{name: "username", text: func(f *F) string { return f.HTTP.Username }},
			},
		},
		{
			name: "ssl", kind: flow.SSL, conn: true,
			fields: []field{
				{
					name: "server_name", of: func(z *F) bool { return z.SSL.ServerName != "" },
					text: func(f *F) string { return f.SSL.ServerName },
				},
				{name: "version", text: func(f *F) string { return f.SSL.Version }},
				{name: "cipher", text: func(f *F) string { return f.SSL.Cipher }},
				{name: "established", text: func(f *F) string { return tri(f.SSL.Established) }},
				{name: "resumed", text: func(f *F) string { return tri(f.SSL.Resumed) }},
				{name: "ja3", of: func(z *F) bool { return z.SSL.JA3 != "" }, text: func(f *F) string { return f.SSL.JA3 }},
				{name: "ja3s", of: func(z *F) bool { return z.SSL.JA3S != "" }, text: func(f *F) string { return f.SSL.JA3S }},
				{name: "ja4", of: func(z *F) bool { return z.SSL.JA4 != "" }, text: func(f *F) string { return f.SSL.JA4 }},
				{name: "cert_fps", text: func(f *F) string { return sorted(f.SSL.CertFPs) }},
				{
					name: "validation", of: func(z *F) bool { return z.SSL.Validation != "" },
					text: func(f *F) string { return f.SSL.Validation },
				},
				{name: "next_protocol", text: func(f *F) string { return f.SSL.NextProtocol }},
				{name: "last_alert", text: func(f *F) string { return f.SSL.LastAlert }},
			},
		},
		{
			name: "x509", kind: flow.X509, more: []func(*F) string{func(f *F) string { return f.X509.Fingerprint }},
			fields: []field{
				{name: "subject", text: func(f *F) string { return f.X509.Subject }},
				{name: "issuer", text: func(f *F) string { return f.X509.Issuer }},
				{name: "serial", text: func(f *F) string { return f.X509.Serial }},
				{name: "validity", text: func(f *F) string { return number(f.X509.NotBefore/1e9) + "-" + number(f.X509.NotAfter/1e9) }},
			},
		},
		{
			name: "files", kind: flow.Files, skip: otherFile, more: []func(*F) string{func(f *F) string { return f.Files.MD5 }},
			fields: []field{
				{name: "sha1", text: func(f *F) string { return f.Files.SHA1 }},
				{name: "mime_type", text: func(f *F) string { return f.Files.MIMEType }},
				{name: "filename", text: func(f *F) string { return f.Files.Filename }},
				{name: "seen_bytes", text: func(f *F) string { return number(f.Files.SeenBytes) }},
			},
		},
		{
			name: "ssh", kind: flow.SSH, conn: true,
			fields: []field{
				{name: "version", text: func(f *F) string { return number(f.SSH.Version) }},
				{name: "client", text: func(f *F) string { return f.SSH.Client }},
				{name: "server", text: func(f *F) string { return f.SSH.Server }},
				{name: "auth_success", text: func(f *F) string { return tri(f.SSH.AuthSuccess) }},
				{name: "auth_attempts", text: func(f *F) string { return number(f.SSH.AuthAttempts) }},
			},
		},
		{
			name: "smtp", kind: flow.SMTP, conn: true,
			more: []func(*F) string{func(f *F) string { return number(f.SMTP.TransDepth) }},
			fields: []field{
				{name: "helo", text: func(f *F) string { return f.SMTP.Helo }},
				{name: "mailfrom", text: func(f *F) string { return f.SMTP.MailFrom }},
				{name: "rcptto", text: func(f *F) string { return sorted(f.SMTP.RcptTo) }},
				{name: "from", text: func(f *F) string { return f.SMTP.From }},
				{name: "to", text: func(f *F) string { return sorted(f.SMTP.To) }},
				{name: "subject", text: func(f *F) string { return f.SMTP.Subject }},
				{name: "last_reply", text: func(f *F) string { return f.SMTP.LastReply }},
				{name: "tls", text: func(f *F) string { return tri(f.SMTP.TLS) }},
			},
		},
		{
			name: "ftp", kind: flow.FTP, conn: true,
			more: []func(*F) string{func(f *F) string { return f.FTP.Command }, func(f *F) string { return f.FTP.Arg }},
			fields: []field{
				{name: "user", text: func(f *F) string { return f.FTP.User }},
				{name: "reply", text: func(f *F) string { return number(f.FTP.ReplyCode) + " " + f.FTP.ReplyMsg }},
				{name: "data", text: func(f *F) string { return tri(f.FTP.DataPassive) + " " + number(f.FTP.DataPort) }},
			},
		},
		{
			name: "dhcp", kind: flow.DHCP,
			more: []func(*F) string{func(f *F) string { return f.DHCP.MAC }, func(f *F) string { return sorted(f.DHCP.MsgTypes) }},
			fields: []field{
				{name: "host_name", text: func(f *F) string { return f.DHCP.HostName }},
				{name: "client", text: func(f *F) string { return addr(f.DHCP.Client) }},
				{name: "server", text: func(f *F) string { return addr(f.DHCP.Server) }},
				{name: "requested", text: func(f *F) string { return addr(f.DHCP.Requested) }},
				{name: "assigned", text: func(f *F) string { return addr(f.DHCP.Assigned) }},
				{name: "lease_time", text: func(f *F) string { return number(f.DHCP.LeaseTime / 1e9) }},
			},
		},
		{
			name: "software", kind: flow.Software,
			more: []func(*F) string{
				func(f *F) string { return addr(f.Src) }, func(f *F) string { return f.Software.Type },
				func(f *F) string { return f.Software.Unparsed },
			},
			fields: []field{
				{name: "name", text: func(f *F) string { return f.Software.Name }},
				{name: "version", text: func(f *F) string { return fmt.Sprint(f.Software.Major, f.Software.Minor, f.Software.Minor2) }},
			},
		},
		{
			name: "tunnel", kind: flow.Tunnel, conn: true,
			more: []func(*F) string{func(f *F) string { return f.Tunnel.Type }, func(f *F) string { return f.Tunnel.Action }},
		},
		{
			name: "arp", kind: flow.ARP,
			more: []func(*F) string{
				func(f *F) string { return addr(f.Src) }, func(f *F) string { return addr(f.Dst) },
				func(f *F) string { return f.ARP.Operation }, func(f *F) string { return f.SrcMAC },
			},
		},
	}
}
