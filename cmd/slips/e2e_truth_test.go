package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What datasets/ground_truth.json and its README say of real traffic, as far
// as the modules can tell, and where an alert is right, allowed or false.
func TestGroundTruth(t *testing.T) {
	for _, c := range []struct {
		input  string
		host   string // that the evidence is about; empty: none is required
		types  string // evidence that must be there
		never  string // evidence that must not be there, about anybody
		alerts string // hosts that may be alerted on; any other alert is false; * are all but clean
		must   string // hosts that must be
		clean  string // the host that must not be
	}{
		{input: "zeek/portscan", host: "172.16.1.11", types: "VERTICAL_PORT_SCAN HORIZONTAL_PORT_SCAN ICMP_ADDRESS_SCAN", must: "172.16.1.11"},
		{input: "zeek/horizontal-scan", host: "10.0.2.112", types: "HORIZONTAL_PORT_SCAN", must: "10.0.2.112"},
		{input: "zeek/simda-dga", host: "192.168.1.116", types: "DGA_NXDOMAINS", must: "192.168.1.116 fd77:48a1:c0bb:0:b96c:506d:6c7f:e8be"},
		{input: "zeek/isc-2021-10", host: "10.10.22.156", types: "MULTIPLE_RECONNECTION_ATTEMPTS CONNECTION_WITHOUT_DNS SPAMBOT", must: "10.10.22.156 10.10.22.157 10.10.22.158"},
		{input: "zeek/isc-2021-10", host: "10.10.22.157", types: "BEACON LONG_CONNECTION", must: "10.10.22.156 10.10.22.157 10.10.22.158"},
		{input: "zeek/njrat/labeled-conn.log", host: "192.168.1.115", types: "BEACON MULTIPLE_RECONNECTION_ATTEMPTS", must: "192.168.1.115"},
		{input: "zeek/test10-mixed", host: "147.32.83.156", types: "HORIZONTAL_PORT_SCAN", alerts: "147.32.83.156"},
		{input: "zeek/test14-malicious", host: "10.0.2.15", types: "MULTIPLE_RECONNECTION_ATTEMPTS GRE_TUNNEL SUSPICIOUS_USER_AGENT EXECUTABLE_MIME_TYPE EMPTY_CONNECTIONS", must: "10.0.2.15"},
		{input: "zeek/test14-malicious", types: "BAD_SMTP_LOGIN SMTP_LOGIN_BRUTEFORCE", alerts: "10.0.2.15"},
		{input: "zeek/test9-mixed", host: "192.168.1.15", types: "ICMP_ADDRESS_SCAN ICMP_TIMESTAMP_SCAN ICMP_ADDRESS_MASK_SCAN", alerts: "192.168.1.15 10.0.2.15"},
		{input: "pcap/zeek-logs/test7-malicious", host: "192.168.2.16", types: "HORIZONTAL_PORT_SCAN", must: "192.168.2.16"},
		{input: "pcap/zeek-logs/test12-icmp-portscan", host: "192.168.1.109", types: "ICMP_ADDRESS_SCAN", must: "192.168.1.109"},
		{input: "argus/test2-malicious.binetflow", host: "10.8.0.69", types: "LONG_CONNECTION", alerts: "10.8.0.69"},
		{input: "argus/test5-mixed.binetflow", host: "10.0.2.15", types: "LONG_CONNECTION", alerts: "10.0.2.15"},
		{input: "argus/test11-portscan.binetflow", host: "10.8.0.69", types: "ICMP_ADDRESS_SCAN", alerts: "10.8.0.69"},
		{input: "argus/labelled-tabs.binetflow", host: "10.0.2.15", types: "LONG_CONNECTION DNS_FLOOD", must: "10.0.2.15"},
		{input: "pcap/zeek-logs/test-cc-capture-1", host: "147.32.80.37", types: "BEACON", must: "147.32.80.37"},
		{input: "zeek/test13-malicious-dhcpscan", types: "DHCP_SCAN"},
		{input: "zeek/test16-malicious", types: "ARP_OUTSIDE_LOCALNET UNSOLICITED_ARP"},
		// Who scans a host may be alerted on; the host that is scanned may not.
		{input: "suricata/eve-scanned-home.json", types: "SIGNATURE_ALERT VERTICAL_PORT_SCAN", alerts: "*", clean: "192.168.1.129"},
		{input: "zeek/mixed-008", alerts: "*", clean: "147.32.81.167"},
		{input: "zeek/mixed-012", alerts: "*", clean: "147.32.83.161"},
		// Benign traffic.
		{input: "benign/ubuntu-2023-02-25", never: "HORIZONTAL_PORT_SCAN VERTICAL_PORT_SCAN PASSWORD_GUESSING DGA_NXDOMAINS"},
		{input: "benign/win7ad-2023-02-26", never: "HORIZONTAL_PORT_SCAN VERTICAL_PORT_SCAN PASSWORD_GUESSING DGA_NXDOMAINS"},
		{input: "argus/benign-bittorrent-normal-7.binetflow"},
	} {
		t.Run(c.input, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			analyseFiles(t, out, dataset(t, c.input))
			got := results(t, out)
			types := got.evidence.types(c.host)
			for typ := range strings.FieldsSeq(c.types) {
				if types[typ] == 0 {
					t.Errorf("no %s about %q: %v; hosts with evidence: %v", typ, c.host, types, slices.Sorted(maps.Keys(got.evidence.hosts())))
				}
			}
			all := got.evidence.types("")
			for typ := range strings.FieldsSeq(c.never) {
				if all[typ] > 0 {
					t.Errorf("%d %s, which is false", all[typ], typ)
				}
			}
			alerted := got.alerts.hosts()
			for host := range strings.FieldsSeq(c.must) {
				if !alerted[host] {
					t.Errorf("no alert on %s", host)
				}
			}
			allowed := strings.Fields(c.alerts + " " + c.must)
			var wrong []string
			for _, line := range got.alerts {
				if host := text(object(line)["profile"]); !slices.Contains(allowed, host) && (c.alerts != "*" || host == c.clean) {
					wrong = append(wrong, host)
				}
			}
			if len(wrong) > 0 {
				t.Errorf("%d false alerts: %v", len(wrong), wrong)
			}
			t.Logf("evidence %v, alerts on %v, false %v", all, slices.Sorted(maps.Keys(alerted)), wrong)
		})
	}
}
