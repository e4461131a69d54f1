package selftest

import "github.com/slips-go/slips/alerts/evidence"

// known is a type of evidence of the Python version of Slips.
type known struct {
	Type evidence.Type
	why  string // this version does not have it; empty: it has
}

// The reasons why a type is not in this version.
const (
	model  = "needs a trained model, which this version does not have"
	peers  = "needs a network of peers, which this version is not part of"
	packet = "needs packets; this version reads logs"
)

// reference lists the 65 types of the Python version, in the order of its
// documentation.
func reference() []known {
	return []known{
		{"ARP_SCAN", ""},
		{"ARP_OUTSIDE_LOCALNET", ""},
		{"UNSOLICITED_ARP", ""},
		{"MITM_ARP_ATTACK", ""},
		{"YOUNG_DOMAIN", ""},
		{"MULTIPLE_SSH_VERSIONS", ""},
		{"DIFFERENT_LOCALNET", ""},
		{"DEVICE_CHANGING_IP", ""},
		{"NON_HTTP_PORT_80_CONNECTION", ""},
		{"NON_SSL_PORT_443_CONNECTION", ""},
		{"WEIRD_HTTP_METHOD", ""},
		{"INCOMPATIBLE_CN", ""},
		{"CN_URL_MISMATCH", ""},
		{"DGA_NXDOMAINS", ""},
		{"DNS_WITHOUT_CONNECTION", ""},
		{"PASTEBIN_DOWNLOAD", ""},
		{"CONNECTION_WITHOUT_DNS", ""},
		{"DNS_ARPA_SCAN", ""},
		{"UNKNOWN_PORT", ""},
		{"PASSWORD_GUESSING", ""},
		{"HORIZONTAL_PORT_SCAN", ""},
		{"CONNECTION_TO_PRIVATE_IP", ""},
		{"GRE_TUNNEL", ""},
		{"GRE_SCAN", ""},
		{"VERTICAL_PORT_SCAN", ""},
		{"SSH_SUCCESSFUL", ""},
		{"LONG_CONNECTION", ""},
		{"SELF_SIGNED_CERTIFICATE", ""},
		{"MULTIPLE_RECONNECTION_ATTEMPTS", ""},
		{"CONNECTION_TO_MULTIPLE_PORTS", ""},
		{"HIGH_ENTROPY_DNS_ANSWER", ""},
		{"INVALID_DNS_RESOLUTION", ""},
		{"PORT_0_CONNECTION", ""},
		{"MALICIOUS_JA3", ""},
		{"MALICIOUS_JA3S", ""},
		{"DATA_UPLOAD", ""},
		{"BAD_SMTP_LOGIN", ""},
		{"SMTP_LOGIN_BRUTEFORCE", ""},
		{"MALICIOUS_SSL_CERT", ""},
		{"MALICIOUS_FLOW", model},
		{"SUSPICIOUS_USER_AGENT", ""},
		{"EMPTY_CONNECTIONS", ""},
		{"INCOMPATIBLE_USER_AGENT", ""},
		{"EXECUTABLE_MIME_TYPE", ""},
		{"MULTIPLE_USER_AGENT", ""},
		{"HTTP_TRAFFIC", ""},
		{"MALICIOUS_JARM", ""},
		{"NETWORK_GPS_LOCATION_LEAKED", packet},
		{"ICMP_TIMESTAMP_SCAN", ""},
		{"ICMP_ADDRESS_SCAN", ""},
		{"ICMP_ADDRESS_MASK_SCAN", ""},
		{"DHCP_SCAN", ""},
		{"MALICIOUS_IP_FROM_P2P_NETWORK", peers},
		{"P2P_REPORT", peers},
		{"COMMAND_AND_CONTROL_CHANNEL", model + "; BEACON tells of the same behaviour"},
		{"THREAT_INTELLIGENCE_BLACKLISTED_ASN", ""},
		{"THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP", ""},
		{"THREAT_INTELLIGENCE_TO_BLACKLISTED_IP", ""},
		{"THREAT_INTELLIGENCE_BLACKLISTED_DNS_ANSWER", ""},
		{"THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN", ""},
		{"THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY", ""},
		{"MALICIOUS_DOWNLOADED_FILE", ""},
		{"THREAT_INTELLIGENCE_MALICIOUS_URL", ""},
		{"LOGIN", ""},
		{"TOR_EXIT_NODE", ""},
	}
}
