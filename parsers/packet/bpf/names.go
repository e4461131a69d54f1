package bpf

// ports are the services that go by a name, with the protocols for which the
// name holds, by Debian's /etc/services. The list is short on purpose: a
// filter must mean the same on every machine.
var ports = map[string]struct {
	port  uint16
	proto string // "": TCP, UDP and SCTP, as of a number
}{
	"echo": {7, ""}, "discard": {9, ""}, "daytime": {13, ""}, "chargen": {19, ""}, "ftp-data": {20, "tcp"}, "ftp": {21, "tcp"},
	"ssh": {22, "tcp"}, "telnet": {23, "tcp"}, "smtp": {25, "tcp"}, "mail": {25, "tcp"}, "time": {37, ""}, "whois": {43, "tcp"},
	"domain": {53, ""}, "bootps": {67, "udp"}, "bootpc": {68, "udp"}, "tftp": {69, "udp"}, "gopher": {70, "tcp"},
	"finger": {79, "tcp"}, "http": {80, "tcp"}, "www": {80, "tcp"}, "kerberos": {88, ""}, "pop3": {110, "tcp"},
	"sunrpc": {111, ""}, "portmapper": {111, ""}, "auth": {113, "tcp"}, "ident": {113, "tcp"}, "nntp": {119, "tcp"},
	"ntp": {123, "udp"}, "epmap": {135, "tcp"}, "netbios-ns": {137, "udp"}, "netbios-dgm": {138, "udp"},
	"netbios-ssn": {139, "tcp"}, "imap2": {143, "tcp"}, "imap": {143, "tcp"}, "snmp": {161, ""}, "snmp-trap": {162, ""},
	"bgp": {179, "tcp"}, "ldap": {389, ""}, "https": {443, ""}, "microsoft-ds": {445, "tcp"}, "isakmp": {500, "udp"},
	"exec": {512, "tcp"}, "login": {513, "tcp"}, "shell": {514, "tcp"}, "printer": {515, "tcp"}, "route": {520, "udp"},
	"dhcpv6-client": {546, "udp"}, "dhcpv6-server": {547, "udp"}, "rtsp": {554, ""}, "submission": {587, "tcp"},
	"ipp": {631, "tcp"}, "ldaps": {636, ""}, "domain-s": {853, ""}, "rsync": {873, "tcp"}, "imaps": {993, "tcp"},
	"pop3s": {995, "tcp"}, "socks": {1080, "tcp"}, "openvpn": {1194, ""}, "ms-sql-s": {1433, "tcp"}, "ms-sql-m": {1434, "udp"},
	"radius": {1812, ""}, "radius-acct": {1813, ""}, "nfs": {2049, ""}, "mysql": {3306, "tcp"}, "ms-wbt-server": {3389, "tcp"},
	"sip": {5060, ""}, "xmpp-client": {5222, "tcp"}, "mdns": {5353, "udp"}, "postgresql": {5432, "tcp"}, "x11": {6000, "tcp"},
	"redis": {6379, "tcp"}, "ircd": {6667, "tcp"}, "http-alt": {8080, "tcp"}, "git": {9418, "tcp"},
}

// protocols are the names behind "ip proto" and "ip6 proto", by IANA's
// registry of protocol numbers.
var protocols = map[string]uint32{
	"icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "egp": 8, "igp": 9, "udp": 17, "dccp": 33, "ipv6": 41, "ipv6-route": 43,
	"ipv6-frag": 44, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmp6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
	"eigrp": 88, "ospf": 89, "pim": 103, "vrrp": 112, "carp": 112, "l2tp": 115, "sctp": 132, "udplite": 136,
}

// The Ethernet types and, up to 1500, LLC service access points.
const (
	etherIP    = 0x0800
	etherARP   = 0x0806
	etherRARP  = 0x8035
	etherIPv6  = 0x86dd
	etherVLAN  = 0x8100
	etherQinQ  = 0x88a8
	etherOldQ  = 0x9100
	etherMPLS  = 0x8847
	etherPPPoD = 0x8863
	etherPPPoS = 0x8864
	etherATalk = 0x809b
	etherAARP  = 0x80f3
	etherIPX   = 0x8137
	sapSTP     = 0x42
	sapIPX     = 0xe0
	sapNetBEUI = 0xf0
	sapISO     = 0xfe
	maxLength  = 1500 // of the field that is a length up to here and a type above
)

// ethertypes are the names behind "ether proto", and of those that are also
// keywords of their own what these mean.
var ethertypes = map[string]uint32{
	"ip": etherIP, "arp": etherARP, "rarp": etherRARP, "ip6": etherIPv6, "ipv6": etherIPv6, "atalk": etherATalk, "aarp": etherAARP,
	"decnet": 0x6003, "lat": 0x6004, "moprc": 0x6002, "mopdl": 0x6001, "sca": 0x6007, "loopback": 0x9000,
	"stp": sapSTP, "ipx": sapIPX, "netbeui": sapNetBEUI, "iso": sapISO,
}

// transport are the protocols inside IP that are keywords. A family of 4 or 6
// says that the keyword asks for that version of IP alone.
var transport = map[string]struct {
	proto  uint32
	family int
}{
	"tcp": {6, 0}, "udp": {17, 0}, "sctp": {132, 0}, "ah": {51, 0}, "esp": {50, 0}, "pim": {103, 0},
	"icmp": {1, 4}, "igmp": {2, 4}, "igrp": {9, 4}, "vrrp": {112, 4}, "carp": {112, 4}, "icmp6": {58, 6},
}

// unsupported are the keywords of pcap-filter(7) that are not built.
var unsupported = map[string]bool{
	"gateway": true, "protochain": true, "radio": true, "esis": true, "es-is": true, "isis": true, "is-is": true, "clnp": true,
	"l1": true, "l2": true, "iih": true, "lsp": true, "snp": true, "csnp": true, "psnp": true, "type": true, "subtype": true,
	"dir": true, "direction": true, "addr1": true, "addr2": true, "addr3": true, "addr4": true, "address1": true,
	"address2": true, "address3": true, "address4": true, "ra": true, "ta": true, "byte": true, "ifindex": true, "geneve": true,
	"vxlan": true, "lane": true, "llc": true, "metac": true, "bcc": true, "oam": true, "oamf4": true, "oamf4ec": true,
	"oamf4sc": true, "sc": true, "ilmic": true, "vpi": true, "vci": true, "connectmsg": true, "metaconnect": true, "on": true,
	"ifname": true, "rset": true, "ruleset": true, "rnr": true, "rulenum": true, "srnr": true, "subrulenum": true, "reason": true,
	"action": true, "fisu": true, "lssu": true, "lsu": true, "msu": true, "hfisu": true, "hlssu": true, "hmsu": true,
	"sio": true, "opc": true, "dpc": true, "sls": true, "hsio": true, "hopc": true, "hdpc": true, "hsls": true,
}
