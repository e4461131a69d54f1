// Package flow defines the normalised record that every parser produces and
// every later stage reads. It imports the standard library only.
package flow

import (
	"net/netip"
	"strings"
	"unsafe"
)

// Kind says what a record is about: one kind for each sensor log that
// detectors use.
type Kind uint8

// The record kinds, named after Zeek's logs.
const (
	Conn Kind = iota
	DNS
	HTTP
	SSL
	X509
	Files
	SSH
	SMTP
	FTP
	DHCP
	ARP
	Notice
	Weird
	Software
	Tunnel
	Login
	Known
	QUIC
	RDP
	SMB
	Kerberos
	NTLM
	DCERPC
	NTP
	SIP
	MySQL
	SNMP
	Alert  // a signature alert of the sensor, such as Suricata's
	Lookup // the answer of a service that was asked about what the traffic showed
	NumKinds
)

var kindNames = [NumKinds]string{
	"conn", "dns", "http", "ssl", "x509", "files", "ssh", "smtp", "ftp", "dhcp", "arp", "notice", "weird",
	"software", "tunnel", "login", "known", "quic", "rdp", "smb", "kerberos", "ntlm", "dce_rpc", "ntp", "sip",
	"mysql", "snmp", "alert", "lookup",
}

// String returns the name of the log the kind comes from.
func (k Kind) String() string {
	if k < NumKinds {
		return kindNames[k]
	}
	return "unknown"
}

// KindSet is a set of kinds.
type KindSet uint32

// NoKind is the set of a source whose records are of no kind that is used. It
// is not the empty set, which stands for not knowing.
const NoKind KindSet = 1 << 31

// Of returns the set of kinds.
func Of(kinds ...Kind) KindSet {
	var s KindSet
	for _, k := range kinds {
		s |= 1 << k
	}
	return s
}

// Has reports whether k is in s.
func (s KindSet) Has(k Kind) bool { return s&(1<<k) != 0 }

// Single reports whether s holds exactly one kind.
func (s KindSet) Single() bool { return s != 0 && s&(s-1) == 0 }

// Names returns the names of the kinds in s, in the order of the constants.
func (s KindSet) Names() []string {
	var n []string
	for k := range NumKinds {
		if s.Has(k) {
			n = append(n, k.String())
		}
	}
	return n
}

// Sensor says which format a record came in.
type Sensor uint8

// The sensors.
const (
	Zeek Sensor = iota
	Suricata
	Argus
	Nfdump
)

// String returns the name of the sensor in lower case.
func (s Sensor) String() string { return [...]string{"zeek", "suricata", "argus", "nfdump"}[s&3] }

// Proto is a transport protocol, or what a sensor puts in that place.
type Proto uint8

// The protocols. ProtoOther is any that is not listed; ProtoUnknown means
// that the record does not say.
const (
	ProtoUnknown Proto = iota
	TCP
	UDP
	ICMP
	ICMP6
	IGMP
	GRE
	SCTP
	ESP
	ProtoARP
	ProtoOther
)

var protoNames = [...]string{"", "tcp", "udp", "icmp", "ipv6-icmp", "igmp", "gre", "sctp", "esp", "arp", "other"}

// String returns the usual name in lower case; empty if unknown.
func (p Proto) String() string {
	if int(p) < len(protoNames) {
		return protoNames[p]
	}
	return "other"
}

// IsICMP reports whether p is ICMP for IPv4 or IPv6.
func (p Proto) IsICMP() bool { return p == ICMP || p == ICMP6 }

// ParseProto returns the protocol of a name ("tcp", "UDP", "IPv6-ICMP") or of
// an IANA number in decimal. It does not allocate.
func ParseProto(s string) Proto {
	switch s {
	case "tcp", "TCP", "6":
		return TCP
	case "udp", "UDP", "17":
		return UDP
	case "icmp", "ICMP", "1":
		return ICMP
	case "", "-", "unknown_transport":
		return ProtoUnknown
	}
	switch {
	case strings.EqualFold(s, "tcp"):
		return TCP
	case strings.EqualFold(s, "udp"):
		return UDP
	case strings.EqualFold(s, "icmp"):
		return ICMP
	case strings.EqualFold(s, "icmp6"), strings.EqualFold(s, "ipv6-icmp"), strings.EqualFold(s, "icmpv6"),
		strings.EqualFold(s, "ipv6_icmp"), s == "58":
		return ICMP6
	case strings.EqualFold(s, "igmp"), s == "2":
		return IGMP
	case strings.EqualFold(s, "gre"), s == "47":
		return GRE
	case strings.EqualFold(s, "sctp"), s == "132":
		return SCTP
	case strings.EqualFold(s, "esp"), s == "50":
		return ESP
	case strings.EqualFold(s, "arp"):
		return ProtoARP
	}
	return ProtoOther
}

// State is the interpreted state of a connection (reference 1.4): the same
// few words for every sensor.
type State uint8

// The states. StateUnknown is that of records that are not connections.
const (
	StateUnknown State = iota
	Established
	NotEstablished
	ICMPEcho
	ICMPReply
	ICMPHostUnreachable
	ICMPPortUnreachable
)

// String returns the state in the words of the reference.
func (s State) String() string {
	return [...]string{
		"", "Established", "Not Established", "ICMP Echo", "ICMP Reply",
		"ICMP Host Unreachable", "ICMP Port Unreachable", "",
	}[s&7]
}

// Tri is a truth value that a record may leave out.
type Tri uint8

// The truth values.
const (
	Unset Tri = iota
	False
	True
)

// TriOf returns True or False.
func TriOf(b bool) Tri {
	if b {
		return True
	}
	return False
}

// Flow is one normalised record. The first block holds what every kind has;
// the second what connections have; Parts leads to the part of the record's
// own kind (f.DNS for a DNS record), and only that one may be read.
//
// All strings alias the line the record was decoded from, or memory that the
// Flow owns, and die with the next decode into the same Flow. Who keeps one
// clones it. A Flow is read-only once the sequencer has passed it on.
type Flow struct {
	Seq uint64 // place in the one order of all records; set by the sequencer
	At  int64  // stream time of the record's source, unix ns, never goes back; set by the sequencer
	Low int64  // stream time that every source has reached, unix ns; set by the sequencer
	Own int64  // stream time that every source of the record's kind has reached; set by the sequencer
	End int64  // offset in the source just behind the record's line, bytes; set by the reader

	Time     int64 // start, unix ns, as logged
	Duration int64 // ns; 0 when not logged

	Src, Dst         netip.Addr // the originator and the responder; invalid when not logged
	SrcPort, DstPort uint16     // for ICMP: type and code, as Zeek does
	Kind             Kind
	Sensor           Sensor
	Proto            Proto
	State            State // of connections
	Open             bool  // from an open_* log: the connection goes on
	LocalOrig        Tri
	LocalResp        Tri
	HasPorts         bool // the record had both ports; false makes 0 mean "not logged"

	UID         string // Zeek's uid, Suricata's flow_id, or derived by the decoder when the format has none
	Service     string // application protocol as the sensor names it, lower case
	RawState    string // Zeek conn_state, Argus state, Suricata flow.state, nfdump flags
	History     string // Zeek's history
	CommunityID string
	SrcMAC      string // as logged
	DstMAC      string
	VLAN        uint16 // 0: none
	InnerVLAN   uint16

	OrigBytes, RespBytes     int64 // payload bytes for Zeek; what the format counts elsewhere
	OrigPkts, RespPkts       int64
	OrigIPBytes, RespIPBytes int64
	MissedBytes              int64

	Label         string // ground truth, where the log carries it
	DetailedLabel string

	*Parts // the parts this Flow owns; nil until Reset

	scratch []byte // unescaped text that could not alias the line
}

// DNSPart is the part of a DNS record. Answers and TTLs run in parallel when
// the log has both.
type DNSPart struct {
	Query   string
	QType   string // "A", "AAAA", "TXT"; the number in decimal where the sensor gives no name
	QClass  string
	RCode   string // "NOERROR", "NXDOMAIN"; empty when not answered
	TransID uint16
	RTT     int64 // ns
	AA, TC  Tri
	RD, RA  Tri
	Reject  Tri
	Answers []string // as the sensor prints them: addresses, names, "TXT 5 hello"
	TTLs    []int64  // s
	// Response is false for a query seen alone, true for an answer, and true
	// for Zeek's one record of both whenever it has an rcode.
	Response bool
}

// HTTPPart is the part of one request and its response.
type HTTPPart struct {
	Method, Host, URI, Version, UserAgent, Referrer string
	StatusCode                                      int
	StatusMsg                                       string
	RequestLen, ResponseLen                         int64 // body bytes
	OrigMIMETypes, RespMIMETypes                    []string
	OrigFUIDs, RespFUIDs                            []string
	Username                                        string
	HasPassword                                     bool
	Proxied                                         []string
	TransDepth                                      int
}

// SSLPart is the part of a TLS (or, with Kind QUIC, a QUIC) handshake.
type SSLPart struct {
	Version, Cipher, Curve, ServerName, NextProtocol, LastAlert string
	Subject, Issuer                                             string
	ClientSubject, ClientIssuer                                 string
	Validation                                                  string // Zeek's validation_status
	Resumed, Established                                        Tri
	IsDoH                                                       Tri
	SNIMatchesCert                                              Tri
	JA3, JA3S, JA4, JA4S                                        string
	CertFPs, ClientCertFPs                                      []string // fingerprints or file ids, as logged
	Serial                                                      string
	SHA1                                                        string // of the server's certificate, lower-case hex, no colons; Suricata's fingerprint
	NotBefore, NotAfter                                         int64  // unix ns, 0 when not logged
}

// X509Part is the part of a certificate.
type X509Part struct {
	Fingerprint, ID, Serial, Subject, Issuer string
	NotBefore, NotAfter                      int64 // unix ns
	KeyAlg, SigAlg, KeyType                  string
	KeyLength                                int
	SANDNS                                   []string
	SANIP                                    []string
	CA, HostCert, ClientCert                 Tri
	Version                                  int
}

// FilesPart is the part of a file that a sensor saw pass. The Flow's Src is
// the sender of the file.
type FilesPart struct {
	FUID, Source, MIMEType, Filename, MD5, SHA1, SHA256 string
	Analyzers                                           []string
	ConnUIDs                                            []string
	SeenBytes, TotalBytes                               int64
	LocalOrig, IsOrig                                   Tri
	ExtractedName                                       string
}

// SSHPart is the part of an SSH session.
type SSHPart struct {
	Version                                     int
	AuthSuccess                                 Tri
	AuthAttempts                                int // -1 when not logged
	Direction                                   string
	Client, Server                              string
	CipherAlg, MACAlg, KexAlg, HostKeyAlg       string
	CompressionAlg, HostKey, HASSH, HASSHServer string
	InferredLogin, RemoteCountry                string
}

// SMTPPart is the part of an SMTP exchange.
type SMTPPart struct {
	Helo, MailFrom, From, Subject, LastReply, UserAgent, MsgID string
	RcptTo, To, Path                                           []string
	TLS                                                        Tri
	TransDepth                                                 int
}

// FTPPart is the part of an FTP command.
type FTPPart struct {
	User, Command, Arg, ReplyMsg, MIMEType string
	HasPassword                            bool
	ReplyCode                              int
	DataPassive                            Tri
	DataOrig, DataResp                     netip.Addr
	DataPort                               uint16
	FileSize                               int64
}

// DHCPPart is the part of a DHCP exchange. The Flow's Src is the client's
// address, or the one it asked for when it has none; its Dst the server's.
type DHCPPart struct {
	MAC, HostName, ClientFQDN, Domain, ClientMessage, ServerMessage string
	Client, Server, Requested, Assigned, Router                     netip.Addr
	LeaseTime                                                       int64 // ns
	MsgTypes                                                        []string
	UIDs                                                            []string
	VendorClass                                                     string
}

// ARPPart is the part of an ARP message. Src and Dst of the Flow are the
// protocol addresses, SrcMAC and DstMAC the Ethernet addresses.
type ARPPart struct {
	Operation string // "request" or "reply"
	SenderHW  string // hardware address inside the ARP message
	TargetHW  string
}

// NoticePart is the part of a Zeek notice. The Flow's Src and Dst fall back
// to the notice's own src and dst.
type NoticePart struct {
	Note, Msg, Sub string
	Src, Dst       netip.Addr
	Port           uint16
	N              int64
	Actions        []string
	SuppressFor    int64 // ns
}

// WeirdPart is the part of a protocol violation, Zeek's weird or Suricata's anomaly.
type WeirdPart struct {
	Name, Addl, Peer, Source string
	Notice                   Tri
}

// SoftwarePart is the part of a software banner; the Flow's Src is the host.
type SoftwarePart struct {
	Type, Name, Unparsed string
	Major, Minor, Minor2 int // -1 when not logged
	Addl                 string
}

// TunnelPart is the part of a tunnel.
type TunnelPart struct {
	Type, Action string
}

// LoginPart is the part of a telnet, rlogin or rsh login.
type LoginPart struct {
	Success, Confused Tri
	User, ClientUser  string
	HasPassword       bool
}

// KnownPart is the part of known_hosts, known_services, known_certs and
// known_devices; the Flow's Src is the host.
type KnownPart struct {
	Log      string // the log's name: "known_hosts" …
	Services []string
	Subject  string
	Issuer   string
	Serial   string
	MAC      string
}

// RDPPart is the part of an RDP session.
type RDPPart struct {
	Cookie, Result, SecurityProtocol, KeyboardLayout, ClientBuild, ClientName string
	CertType                                                                  string
	CertCount                                                                 int
}

// SMBPart is the part of smb_files, smb_mapping and Suricata's smb.
type SMBPart struct {
	Log                            string // "smb_files", "smb_mapping", "smb_cmd"
	Action, Path, Name, PrevName   string
	ShareType, Service, Command    string
	Status, Dialect                string
	Size                           int64
	NTLMUser, NTLMHost, NTLMDomain string
}

// KerberosPart is the part of a Kerberos request.
type KerberosPart struct {
	RequestType, Client, Service, Cipher, ErrorMsg string
	Success                                        Tri
	Forwardable, Renewable                         Tri
	Till                                           int64 // unix ns
}

// NTLMPart is the part of an NTLM authentication.
type NTLMPart struct {
	User, Host, Domain, ServerName, ServerDNSName, Status string
	Success                                               Tri
}

// DCERPCPart is the part of a DCE/RPC call.
type DCERPCPart struct {
	NamedPipe, Endpoint, Operation string
	RTT                            int64 // ns
}

// NTPPart is the part of an NTP message.
type NTPPart struct {
	Version, Mode, Stratum int
	RefID                  string
}

// SIPPart is the part of a SIP request and its response.
type SIPPart struct {
	Method, URI, From, To, CallID, UserAgent, Status string
	StatusCode                                       int
}

// MySQLPart is the part of a MySQL command.
type MySQLPart struct {
	Command, Arg, Response string
	Success                Tri
	Rows                   int64
}

// SNMPPart is the part of an SNMP session.
type SNMPPart struct {
	Version, Community, DisplayString        string
	GetRequests, GetBulk, GetResponses, Set_ int64
}

// AlertPart is the part of a signature alert of the sensor.
type AlertPart struct {
	Action, Signature, Category string
	GID, SID, Rev               int64
	Severity                    int // Suricata: 1 is the most severe; 0 when not logged
	MITRETactic                 string
	MITRETechnique              string
	SrcIsTarget                 bool // the rule says that the packet's source is its target
}

// LookupPart is the part of an answer of an online service: see the package
// feeds/online, which writes it into lookup.log. The Flow's Src is the host
// whose traffic gave rise to the question, Dst and DstPort the peer it was
// about, UID that of the connection; Time is when the answer came.
type LookupPart struct {
	Service string // "rdap", "virustotal" …
	Of      string // kind of the subject, as intel.Kind prints it: "ip", "domain", "url", "md5" …
	Subject string // what was asked about, in intel's canonical form
	Found   Tri    // whether the service knows the subject; Unset: it did not answer, Error says why
	Error   string

	Malicious, Total int      // opinions that call it bad, of all that there are
	Score            float64  // how bad the service thinks it is, 0 to 1; 0 when it does not say
	Verdict          string   // in the service's words
	Lists            []string // that name the subject
	Tags             []string
	Link             string // to read more

	Registered int64 // when a domain was registered, unix ns; 0: not said
	Registrant string
	Names      []string // of an address: reverse or passive DNS
	ASN        uint32
	ASOrg      string
	Country    string // ISO 3166-1 alpha-2
	JARM       string
}

// Parts leads to the parts of a record, one for each kind. After
// Flow.Reset(k) the part of kind k is there and empty; the others are what
// earlier records left and must not be read.
type Parts struct {
	DNS      *DNSPart
	HTTP     *HTTPPart
	SSL      *SSLPart
	X509     *X509Part
	Files    *FilesPart
	SSH      *SSHPart
	SMTP     *SMTPPart
	FTP      *FTPPart
	DHCP     *DHCPPart
	ARP      *ARPPart
	Notice   *NoticePart
	Weird    *WeirdPart
	Software *SoftwarePart
	Tunnel   *TunnelPart
	Login    *LoginPart
	Known    *KnownPart
	RDP      *RDPPart
	SMB      *SMBPart
	Kerberos *KerberosPart
	NTLM     *NTLMPart
	DCERPC   *DCERPCPart
	NTP      *NTPPart
	SIP      *SIPPart
	MySQL    *MySQLPart
	SNMP     *SNMPPart
	Alert    *AlertPart
	Lookup   *LookupPart
}

// maxScratch bounds the text a Flow keeps room for, so that one enormous line
// does not stay in memory once for each record of a batch.
const maxScratch = 64 << 10

// Reset makes f an empty record of kind k with the part of that kind in
// place, reusing what f owns. It does not allocate once f has held the kind.
func (f *Flow) Reset(k Kind) {
	s, scratch := f.Parts, f.scratch[:0]
	if cap(scratch) > maxScratch {
		scratch = nil
	}
	if s == nil && k != Conn {
		s = new(Parts)
	}
	*f = Flow{Kind: k, Parts: s, scratch: scratch}
	switch k {
	case Conn:
	case DNS:
		if s.DNS == nil {
			s.DNS = new(DNSPart)
		}
		*s.DNS = DNSPart{Answers: s.DNS.Answers[:0], TTLs: s.DNS.TTLs[:0]}
	case HTTP:
		if s.HTTP == nil {
			s.HTTP = new(HTTPPart)
		}
		o := s.HTTP
		*o = HTTPPart{
			OrigMIMETypes: o.OrigMIMETypes[:0], RespMIMETypes: o.RespMIMETypes[:0],
			OrigFUIDs: o.OrigFUIDs[:0], RespFUIDs: o.RespFUIDs[:0], Proxied: o.Proxied[:0],
		}
	case SSL, QUIC:
		if s.SSL == nil {
			s.SSL = new(SSLPart)
		}
		*s.SSL = SSLPart{CertFPs: s.SSL.CertFPs[:0], ClientCertFPs: s.SSL.ClientCertFPs[:0]}
	case X509:
		if s.X509 == nil {
			s.X509 = new(X509Part)
		}
		*s.X509 = X509Part{SANDNS: s.X509.SANDNS[:0], SANIP: s.X509.SANIP[:0]}
	case Files:
		if s.Files == nil {
			s.Files = new(FilesPart)
		}
		*s.Files = FilesPart{Analyzers: s.Files.Analyzers[:0], ConnUIDs: s.Files.ConnUIDs[:0]}
	case SSH:
		fresh(&s.SSH)
		f.SSH.AuthAttempts = -1
	case SMTP:
		if s.SMTP == nil {
			s.SMTP = new(SMTPPart)
		}
		*s.SMTP = SMTPPart{RcptTo: s.SMTP.RcptTo[:0], To: s.SMTP.To[:0], Path: s.SMTP.Path[:0]}
	case FTP:
		fresh(&s.FTP)
	case DHCP:
		if s.DHCP == nil {
			s.DHCP = new(DHCPPart)
		}
		*s.DHCP = DHCPPart{MsgTypes: s.DHCP.MsgTypes[:0], UIDs: s.DHCP.UIDs[:0]}
	case ARP:
		fresh(&s.ARP)
	case Notice:
		if s.Notice == nil {
			s.Notice = new(NoticePart)
		}
		*s.Notice = NoticePart{Actions: s.Notice.Actions[:0]}
	case Weird:
		fresh(&s.Weird)
	case Software:
		fresh(&s.Software)
		f.Software.Major, f.Software.Minor, f.Software.Minor2 = -1, -1, -1
	case Tunnel:
		fresh(&s.Tunnel)
	case Login:
		fresh(&s.Login)
	case Known:
		if s.Known == nil {
			s.Known = new(KnownPart)
		}
		*s.Known = KnownPart{Services: s.Known.Services[:0]}
	case RDP:
		fresh(&s.RDP)
	case SMB:
		fresh(&s.SMB)
	case Kerberos:
		fresh(&s.Kerberos)
	case NTLM:
		fresh(&s.NTLM)
	case DCERPC:
		fresh(&s.DCERPC)
	case NTP:
		fresh(&s.NTP)
	case SIP:
		fresh(&s.SIP)
	case MySQL:
		fresh(&s.MySQL)
	case SNMP:
		fresh(&s.SNMP)
	case Alert:
		fresh(&s.Alert)
	case Lookup:
		if s.Lookup == nil {
			s.Lookup = new(LookupPart)
		}
		*s.Lookup = LookupPart{Lists: s.Lookup.Lists[:0], Tags: s.Lookup.Tags[:0], Names: s.Lookup.Names[:0]}
	default: // NumKinds is no kind
	}
}

// fresh empties the part at p, making it first when there is none.
func fresh[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	var zero T
	**p = zero
	return *p
}

// Hold copies b into memory that f owns and returns it as a string that lives
// as long as f's other strings. Decoders use it for text that had to be
// unescaped and so cannot alias the line.
func (f *Flow) Hold(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	n := len(f.scratch)
	f.scratch = append(f.scratch, b...)
	return unsafe.String(&f.scratch[n], len(b))
}

// Alias returns b as a string without copying. It is valid as long as b is
// not changed.
func Alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
