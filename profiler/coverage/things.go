package coverage

import (
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// thing is a log of a sensor, or a field of one, that detections are made of.
// What every record of a log has, as times and addresses, is none: without it
// a line is no record.
type thing struct {
	name string // "ssl", or "ssl.ja3" by the names that Zeek gives
	also string // other names of the field

	seen func(f *flow.Flow) bool // a record has the field; nil: only a header can say that there is none
	of   func(f *flow.Flow) bool // a record would have the field if the sensor logged it; nil: each one
	min  int32                   // such records without the field that are believed; fewer may be chance

	instead string // what serves as well, when all of it is there
	hint    hint
}

// hint says what to do about a thing that is not there.
type hint uint8

const (
	noHint hint = iota
	ownScripts
	ownOrPackage
	macLogging
	hashFiles
	hashSHA256
	hashCerts
	validateCerts
	dhcpSoftware
	newer
	perhapsFiltered
)

// install is how our scripts get into a Zeek that is there already.
const install = "slips zeek-scripts install DIR, and @load DIR in local.zeek"

// String returns what to do.
func (h hint) String() string {
	switch h {
	case ownScripts:
		return install
	case ownOrPackage:
		return install + ", or a package of Zeek's that adds it"
	case macLogging:
		return "@load policy/protocols/conn/mac-logging"
	case hashFiles:
		return "@load policy/frameworks/files/hash-all-files"
	case hashSHA256:
		return "event file_new(f: fa_file) { Files::add_analyzer(f, Files::ANALYZER_SHA256); } in local.zeek"
	case hashCerts:
		return "@load policy/frameworks/files/hash-all-files and redef X509::log_x509_in_files_log = T"
	case validateCerts:
		return "@load policy/protocols/ssl/validate-certs"
	case dhcpSoftware:
		return "@load policy/protocols/dhcp/software"
	case newer:
		return "a newer Zeek writes it"
	case perhapsFiltered:
		return "Zeek writes it unless a filter or a policy script leaves it out"
	case noHint:
	}
	return ""
}

// Two things are no fields but what is in them. Lists of certificates go by
// SHA-1, while Zeek fingerprints by SHA-256 since version 5 unless
// X509::hash_function says otherwise, and leaves certificates out of files.log.
const (
	certFPs   = "ssl.cert_chain_fps (SHA-1)"
	certFiles = "files.sha1 (of certificates)"
)

// inValues reports whether a thing is no field of its own, so that a header says
// nothing about it.
func inValues(name string) bool { return name == certFPs || name == certFiles }

func hasSHA1(f *flow.Flow) bool {
	return f.SSL.SHA1 != "" || len(f.SSL.CertFPs) > 0 && len(f.SSL.CertFPs[0]) == 40
}

// Records that would have a field.
func established(f *flow.Flow) bool { return f.State == flow.Established }
func overTCP(f *flow.Flow) bool     { return f.Proto == flow.TCP }
func answered(f *flow.Flow) bool    { return f.DNS.RCode == "NOERROR" }
func withBody(f *flow.Flow) bool    { return f.HTTP.StatusCode == 200 && f.HTTP.ResponseLen > 0 }
func fetched(f *flow.Flow) bool     { return f.HTTP.StatusCode == 200 && f.HTTP.Method == "GET" }
func completed(f *flow.Flow) bool   { return f.SSL.Established == flow.True }
func transferred(f *flow.Flow) bool { return f.Files.Source != "SSL" }
func certificate(f *flow.Flow) bool { return f.Files.Source == "SSL" }
func matchable(f *flow.Flow) bool   { return f.SSL.ServerName != "" && len(f.SSL.CertFPs) > 0 }

// readable says that the server's certificate went over the wire in the clear:
// TLS 1.3 hides it, and a resumed session has none.
func readable(f *flow.Flow) bool {
	return f.SSL.Established == flow.True && f.SSL.Resumed != flow.True && f.SSL.Version != "" && f.SSL.Version != "TLSv13"
}

func withCert(f *flow.Flow) bool { return len(f.SSL.CertFPs) > 0 || f.SSL.Subject != "" }

// things returns all fields that a detection is made of, and Zeek's way of
// telling that they are there. The test of the table finds those that are
// missing here.
//
// A field that hardly any record has, as a password, shows only in a header.
// The numbers of records are guesses on the safe side: so many connections
// without one known service, so many sessions of SSH that were not one of them
// decided, do occur in small networks, and the hint costs nothing then.
func things() []thing {
	return []thing{
		{name: "conn.conn_state", seen: func(f *flow.Flow) bool { return f.RawState != "" }, min: 20, hint: perhapsFiltered},
		{name: "conn.history", seen: func(f *flow.Flow) bool { return f.History != "" }, of: overTCP, min: 50, hint: perhapsFiltered},
		{name: "conn.duration", seen: func(f *flow.Flow) bool { return f.Duration > 0 }, of: established, min: 50, hint: perhapsFiltered},
		{name: "conn.service", seen: func(f *flow.Flow) bool { return f.Service != "" }, of: established, min: 200, hint: perhapsFiltered},
		{name: "conn.orig_bytes", seen: func(f *flow.Flow) bool { return f.OrigBytes > 0 }, of: established, min: 50, hint: perhapsFiltered},
		{name: "conn.resp_bytes", seen: func(f *flow.Flow) bool { return f.RespBytes > 0 }, of: established, min: 50, hint: perhapsFiltered},
		{name: "conn.orig_pkts", seen: func(f *flow.Flow) bool { return f.OrigPkts > 0 }, min: 50, hint: perhapsFiltered},
		{name: "conn.resp_pkts", seen: func(f *flow.Flow) bool { return f.RespPkts > 0 }, of: established, min: 50, hint: perhapsFiltered},
		{name: "conn.orig_ip_bytes", seen: func(f *flow.Flow) bool { return f.OrigIPBytes > 0 }, min: 50, hint: perhapsFiltered},
		{name: "conn.orig_l2_addr", seen: func(f *flow.Flow) bool { return f.SrcMAC != "" }, min: 50, hint: macLogging},

		{name: "dns.query", seen: func(f *flow.Flow) bool { return f.DNS.Query != "" }, min: 20, hint: perhapsFiltered},
		{name: "dns.qtype_name", seen: func(f *flow.Flow) bool { return strings.Trim(f.DNS.QType, "0123456789") != "" }, min: 20, hint: perhapsFiltered},
		{name: "dns.rcode_name", also: "rcode", seen: func(f *flow.Flow) bool { return f.DNS.RCode != "" }, min: 50, hint: perhapsFiltered},
		{name: "dns.answers", seen: func(f *flow.Flow) bool { return len(f.DNS.Answers) > 0 }, of: answered, min: 50, hint: perhapsFiltered},
		{name: "dns.AA", seen: func(f *flow.Flow) bool { return f.DNS.AA != flow.Unset }, min: 20, hint: perhapsFiltered},

		{name: "http.method", seen: func(f *flow.Flow) bool { return f.HTTP.Method != "" }, min: 20, hint: perhapsFiltered},
		{name: "http.host", seen: func(f *flow.Flow) bool { return f.HTTP.Host != "" }, min: 20, hint: perhapsFiltered},
		{name: "http.uri", seen: func(f *flow.Flow) bool { return f.HTTP.URI != "" }, min: 20, hint: perhapsFiltered},
		{name: "http.user_agent", seen: func(f *flow.Flow) bool { return f.HTTP.UserAgent != "" }, min: 50, hint: perhapsFiltered},
		{name: "http.status_code", seen: func(f *flow.Flow) bool { return f.HTTP.StatusCode != 0 }, min: 50, hint: perhapsFiltered},
		{name: "http.resp_mime_types", seen: func(f *flow.Flow) bool { return len(f.HTTP.RespMIMETypes) > 0 }, of: withBody, min: 20, hint: perhapsFiltered},
		{name: "http.response_body_len", seen: func(f *flow.Flow) bool { return f.HTTP.ResponseLen > 0 }, of: fetched, min: 50, hint: perhapsFiltered},
		{name: "http.request_body_len", hint: perhapsFiltered},
		{name: "http.referrer", hint: perhapsFiltered},
		{name: "http.username", hint: perhapsFiltered},
		{name: "http.password", hint: perhapsFiltered},

		{name: "ssl.version", seen: func(f *flow.Flow) bool { return f.SSL.Version != "" }, min: 20, hint: perhapsFiltered},
		{name: "ssl.established", seen: func(f *flow.Flow) bool { return f.SSL.Established != flow.Unset }, min: 20, hint: perhapsFiltered},
		{name: "ssl.server_name", seen: func(f *flow.Flow) bool { return f.SSL.ServerName != "" }, min: 50, hint: perhapsFiltered},
		{name: "ssl.subject", seen: func(f *flow.Flow) bool { return f.SSL.Subject != "" }, of: readable, min: 20, instead: "x509+ssl.cert_chain_fps", hint: perhapsFiltered},
		{name: "ssl.issuer", seen: func(f *flow.Flow) bool { return f.SSL.Issuer != "" }, of: readable, min: 20, instead: "x509+ssl.cert_chain_fps", hint: perhapsFiltered},
		{name: "ssl.cert_chain_fps", also: "cert_chain_fuids", seen: func(f *flow.Flow) bool { return len(f.SSL.CertFPs) > 0 }, of: readable, min: 20, hint: perhapsFiltered},
		{name: certFPs, seen: hasSHA1, of: func(f *flow.Flow) bool { return len(f.SSL.CertFPs) > 0 }, min: 5, instead: certFiles, hint: hashCerts},
		{name: "ssl.validation_status", seen: func(f *flow.Flow) bool { return f.SSL.Validation != "" }, of: withCert, min: 20, hint: validateCerts},
		{name: "ssl.sni_matches_cert", seen: func(f *flow.Flow) bool { return f.SSL.SNIMatchesCert != flow.Unset }, of: matchable, min: 20, hint: newer},
		{name: "ssl.ja3", seen: func(f *flow.Flow) bool { return f.SSL.JA3 != "" }, min: 20, hint: ownOrPackage},
		{name: "ssl.ja3s", seen: func(f *flow.Flow) bool { return f.SSL.JA3S != "" }, of: completed, min: 20, hint: ownOrPackage},
		{name: "ssl.ja4", seen: func(f *flow.Flow) bool { return f.SSL.JA4 != "" }, min: 20, hint: ownOrPackage},
		{name: "ssl.is_doh", also: "is_DoH", hint: ownScripts},
		{name: "quic.server_name", seen: func(f *flow.Flow) bool { return f.SSL.ServerName != "" }, min: 20, hint: perhapsFiltered},

		{name: "x509.fingerprint", also: "id", seen: func(f *flow.Flow) bool { return f.X509.Fingerprint != "" || f.X509.ID != "" }, min: 5, hint: perhapsFiltered},
		{name: "x509.certificate.subject", seen: func(f *flow.Flow) bool { return f.X509.Subject != "" }, min: 20, hint: perhapsFiltered},
		{name: "x509.certificate.issuer", seen: func(f *flow.Flow) bool { return f.X509.Issuer != "" }, min: 20, hint: perhapsFiltered},
		{name: "x509.certificate.not_valid_before", seen: func(f *flow.Flow) bool { return f.X509.NotBefore != 0 }, min: 5, hint: perhapsFiltered},
		{name: "x509.certificate.not_valid_after", seen: func(f *flow.Flow) bool { return f.X509.NotAfter != 0 }, min: 5, hint: perhapsFiltered},
		{name: "x509.san.dns", hint: perhapsFiltered},

		{name: "files.md5", seen: func(f *flow.Flow) bool { return f.Files.MD5 != "" }, of: transferred, min: 20, hint: hashFiles},
		{name: "files.sha1", hint: hashFiles},
		{name: certFiles, seen: func(f *flow.Flow) bool { return certificate(f) && f.Files.SHA1 != "" }, of: certificate, min: 5, instead: certFPs, hint: hashCerts},
		{name: "files.sha256", seen: func(f *flow.Flow) bool { return f.Files.SHA256 != "" }, of: transferred, min: 20, hint: hashSHA256},
		{name: "files.mime_type", seen: func(f *flow.Flow) bool { return f.Files.MIMEType != "" }, min: 50, hint: perhapsFiltered},

		{name: "ssh.auth_success", seen: func(f *flow.Flow) bool { return f.SSH.AuthSuccess != flow.Unset }, min: 50, hint: perhapsFiltered},
		{name: "ssh.auth_attempts", seen: func(f *flow.Flow) bool { return f.SSH.AuthAttempts >= 0 }, min: 20, hint: perhapsFiltered},
		{name: "ssh.client", seen: func(f *flow.Flow) bool { return f.SSH.Client != "" }, min: 20, hint: perhapsFiltered},

		{name: "smtp.helo", seen: func(f *flow.Flow) bool { return f.SMTP.Helo != "" }, min: 20, hint: perhapsFiltered},
		{name: "smtp.mailfrom", hint: perhapsFiltered},
		{name: "smtp.rcptto", hint: perhapsFiltered},
		{name: "smtp.from", hint: perhapsFiltered},
		{name: "smtp.last_reply", seen: func(f *flow.Flow) bool { return f.SMTP.LastReply != "" }, min: 20, hint: perhapsFiltered},

		{name: "ftp.user", seen: func(f *flow.Flow) bool { return f.FTP.User != "" }, min: 20, hint: perhapsFiltered},
		{name: "ftp.password", hint: perhapsFiltered},
		{name: "ftp.command", seen: func(f *flow.Flow) bool { return f.FTP.Command != "" }, min: 20, hint: perhapsFiltered},
		{name: "ftp.reply_code", seen: func(f *flow.Flow) bool { return f.FTP.ReplyCode != 0 }, min: 20, hint: perhapsFiltered},
		{name: "ftp.data_channel.resp_p", hint: perhapsFiltered},

		{name: "dhcp.mac", seen: func(f *flow.Flow) bool { return f.DHCP.MAC != "" }, min: 5, hint: perhapsFiltered},
		{name: "dhcp.client_addr", hint: perhapsFiltered},
		{name: "dhcp.server_addr", seen: func(f *flow.Flow) bool { return f.DHCP.Server.IsValid() }, min: 50, hint: perhapsFiltered},
		{name: "dhcp.requested_addr", seen: func(f *flow.Flow) bool { return f.DHCP.Requested.IsValid() }, min: 50, hint: perhapsFiltered},
		{name: "dhcp.assigned_addr", seen: func(f *flow.Flow) bool { return f.DHCP.Assigned.IsValid() }, min: 50, hint: perhapsFiltered},
		{name: "dhcp.client_software", seen: func(f *flow.Flow) bool { return f.DHCP.VendorClass != "" }, min: 20, hint: dhcpSoftware},

		{name: "smb.action", seen: func(f *flow.Flow) bool { return f.SMB.Action != "" }, min: 50, hint: perhapsFiltered},
		{name: "smb.path", seen: func(f *flow.Flow) bool { return f.SMB.Path != "" }, min: 50, hint: perhapsFiltered},
		{name: "smb.name", hint: perhapsFiltered},
		{name: "smb.prev_name", hint: perhapsFiltered},
		{name: "smb.size", hint: perhapsFiltered},
		{name: "dce_rpc.endpoint", seen: func(f *flow.Flow) bool { return f.DCERPC.Endpoint != "" }, min: 50, hint: perhapsFiltered},
		{name: "dce_rpc.operation", seen: func(f *flow.Flow) bool { return f.DCERPC.Operation != "" }, min: 50, hint: perhapsFiltered},
		{name: "kerberos.request_type", seen: func(f *flow.Flow) bool { return f.Kerberos.RequestType != "" }, min: 20, hint: perhapsFiltered},
		{name: "kerberos.client", hint: perhapsFiltered},
		{name: "kerberos.service", seen: func(f *flow.Flow) bool { return f.Kerberos.Service != "" }, min: 20, hint: perhapsFiltered},
		{name: "kerberos.success", seen: func(f *flow.Flow) bool { return f.Kerberos.Success != flow.Unset }, min: 50, hint: perhapsFiltered},
		{name: "kerberos.error_msg", hint: perhapsFiltered},
		{name: "kerberos.cipher", seen: func(f *flow.Flow) bool { return f.Kerberos.Cipher != "" }, min: 50, hint: perhapsFiltered},
		{name: "ntlm.username", hint: perhapsFiltered},
		{name: "ntlm.success", seen: func(f *flow.Flow) bool { return f.NTLM.Success != flow.Unset }, min: 50, hint: perhapsFiltered},
		{name: "mysql.cmd", seen: func(f *flow.Flow) bool { return f.MySQL.Command != "" }, min: 20, hint: perhapsFiltered},
		{name: "mysql.success", seen: func(f *flow.Flow) bool { return f.MySQL.Success != flow.Unset }, min: 50, hint: perhapsFiltered},

		{name: "arp.resp_hw", seen: func(f *flow.Flow) bool { return f.ARP.TargetHW != "" }, min: 20, hint: ownScripts},
		{name: "arp.dst_mac", seen: func(f *flow.Flow) bool { return f.DstMAC != "" }, min: 20, hint: ownScripts},
		{name: "login.success", hint: ownScripts},
		{name: "login.confused", hint: ownScripts},
		{name: "login.user", hint: ownScripts},
		{name: "notice.p", hint: perhapsFiltered},
		{name: "weird.name", hint: perhapsFiltered},
		{name: "weird.addl", hint: perhapsFiltered},
		{name: "software.software_type", hint: perhapsFiltered},
		{name: "software.name", hint: perhapsFiltered},
		{name: "software.unparsed_version", hint: perhapsFiltered},
		{name: "software.version.major", hint: perhapsFiltered},
		{name: "software.version.minor", hint: perhapsFiltered},
		{name: "tunnel.tunnel_type", seen: func(f *flow.Flow) bool { return f.Tunnel.Type != "" }, min: 5, hint: perhapsFiltered},
	}
}

// kindOf returns the log of a thing's name; NumKinds when there is none.
func kindOf(name string) flow.Kind {
	log, _, _ := strings.Cut(name, ".")
	for k := range flow.NumKinds {
		if k.String() == log {
			return k
		}
	}
	return flow.NumKinds
}

// fieldOf returns the field in a thing's name; empty for a log.
func fieldOf(name string) string {
	_, field, _ := strings.Cut(name, ".")
	return field
}
