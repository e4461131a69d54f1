package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// end says how an exchange between two hosts went.
type end uint8

const (
	worked   end = iota // TCP: opened, used and closed; others: answered
	wasReset            // TCP: used, then reset by the originator
	refused             // TCP: a reset for the SYN
	silent              // no answer
	gone                // TCP: the connection is never closed
)

// exchange is what two hosts said to each other: what all sensors see, each
// in its own words.
type exchange struct {
	at         int64 // ms behind tripleBegin
	ms         int64
	proto      string // tcp, udp, icmp, icmp6, gre
	src        string
	sport      int // ICMP: the type
	dst        string
	dport      int // ICMP: the code of the request
	end        end
	sent, got  int64 // bytes of payload
	pkts, back int64
	service    string // as Zeek calls it, where what was said shows it
	srcMAC     string
	dstMAC     string
	reply      int // ICMP: type of the answer
}

// tripleBegin is the time of the first exchange, in Unix ms.
const tripleBegin = 1_710_234_000_000 // 2024-03-12 09:00:00 UTC

// sensor turns exchanges into the files that it would write about them.
type sensor struct {
	name  string
	files func([]exchange) map[string]string
}

func sensors() []sensor {
	return []sensor{
		{"zeek-json", connJSON},
		{"zeek-tsv", connTSV},
		{"suricata", suricataEVE},
		{"argus", argusCSV},
		{"argus-usual", argusUsual},
	}
}

// headers is the length of the headers of one packet below the payload: of IP
// and transport, and with those of Ethernet.
func (x *exchange) headers() (ip, ethernet int64) {
	ip = 28
	if x.proto == "tcp" {
		ip = 40
	}
	if strings.Contains(x.src, ":") {
		ip += 20
	}
	return ip, ip + 14
}

// byEnd sorts exchanges in the order in which a sensor gives up waiting for
// more: wait is how long after the last packet.
func byEnd(list []exchange, wait func(*exchange) int64) []exchange {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b exchange) int { return cmp.Compare(a.at+a.ms+wait(&a), b.at+b.ms+wait(&b)) })
	return list
}

// zeekConn is a line of conn.log: each value by its name. Zeek writes it when
// the connection has ended, or when it was silent for a time that depends on
// the protocol.
type zeekConn struct {
	name  string
	value string // as TSV has it
	kind  byte   // s string, n number, b truth
}

func zeekWait(x *exchange) int64 {
	switch {
	case x.proto != "tcp":
		return 60_000
	case x.end == silent, x.end == gone:
		return 5_000
	}
	return 0
}

func zeekRecord(i int, x *exchange) []zeekConn {
	state := map[end]string{worked: "SF", wasReset: "RSTO", refused: "REJ", silent: "S0", gone: "S1"}[x.end]
	history := map[end]string{worked: "ShADadFf", wasReset: "ShADadR", refused: "Sr", silent: "S", gone: "ShADad"}[x.end]
	service := x.service
	switch x.proto {
	case "udp":
		history = map[end]string{worked: "Dd", silent: "D"}[x.end]
	case "icmp", "icmp6", "gre":
		state, history = "OTH", ""
	}
	proto := x.proto
	switch proto {
	case "gre":
		proto = "unknown_transport"
	case "icmp6":
		proto = "icmp"
	}
	ip, _ := x.headers()
	duration := fmt.Sprintf("%d.%03d000", x.ms/1000, x.ms%1000)
	sent, got := fmt.Sprint(x.sent), fmt.Sprint(x.got)
	if x.pkts+x.back == 1 { // one packet lasts no time, and says nothing of bytes for TCP
		duration = ""
		if x.proto == "tcp" {
			sent, got = "", ""
		}
	}
	dport := x.dport
	if strings.HasPrefix(x.proto, "icmp") {
		dport = x.reply // Zeek puts what answers the type into the place of the code
	}
	return []zeekConn{
		{"ts", fmt.Sprintf("%d.%03d000", (tripleBegin+x.at)/1000, (tripleBegin+x.at)%1000), 'n'},
		{"uid", fmt.Sprintf("C%dz", i), 's'},
		{"id.orig_h", x.src, 's'},
		{"id.orig_p", fmt.Sprint(x.sport), 'n'},
		{"id.resp_h", x.dst, 's'},
		{"id.resp_p", fmt.Sprint(dport), 'n'},
		{"proto", proto, 's'},
		{"service", service, 's'},
		{"duration", duration, 'n'},
		{"orig_bytes", sent, 'n'},
		{"resp_bytes", got, 'n'},
		{"conn_state", state, 's'},
		{"local_orig", truth(x.src), 'b'},
		{"local_resp", truth(x.dst), 'b'},
		{"missed_bytes", "0", 'n'},
		{"history", history, 's'},
		{"orig_pkts", fmt.Sprint(x.pkts), 'n'},
		{"orig_ip_bytes", fmt.Sprint(x.sent + ip*x.pkts), 'n'},
		{"resp_pkts", fmt.Sprint(x.back), 'n'},
		{"resp_ip_bytes", fmt.Sprint(x.got + ip*x.back), 'n'},
		{"orig_l2_addr", x.srcMAC, 's'},
		{"resp_l2_addr", x.dstMAC, 's'},
	}
}

// truth says as Zeek does whether an address is one of Zeek's local nets.
func truth(a string) string {
	if netip.MustParseAddr(a).IsPrivate() {
		return "T"
	}
	return "F"
}

func connTSV(list []exchange) map[string]string {
	var b strings.Builder
	for i, x := range byEnd(list, zeekWait) {
		var names, values []string
		for _, f := range zeekRecord(i, &x) {
			names = append(names, f.name)
			values = append(values, dash(f.value))
		}
		if i == 0 {
			b.WriteString("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#open\t2024-03-12-10-00-00\n#fields\t" +
				strings.Join(names, "\t") + "\n")
		}
		b.WriteString(strings.Join(values, "\t") + "\n")
	}
	return map[string]string{"conn.log": b.String() + "#close\t2024-03-12-16-00-00\n"}
}

func connJSON(list []exchange) map[string]string {
	var b strings.Builder
	for i, x := range byEnd(list, zeekWait) {
		var values []string
		for _, f := range zeekRecord(i, &x) {
			switch {
			case f.value == "":
				continue
			case f.kind == 's':
				f.value = fmt.Sprintf("%q", f.value)
			case f.kind == 'b':
				f.value = fmt.Sprint(f.value == "T")
			}
			values = append(values, fmt.Sprintf("%q:%s", f.name, f.value))
		}
		b.WriteString("{" + strings.Join(values, ",") + "}\n")
	}
	return map[string]string{"conn.log": b.String()}
}

// suricataEVE writes eve.json as Suricata 7 does with flow events alone. They
// come when a flow was silent for a while.
func suricataEVE(list []exchange) map[string]string {
	wait := func(x *exchange) int64 {
		switch {
		case x.proto != "tcp":
			return 30_000
		case x.end == worked, x.end == gone:
			return 600_000
		}
		return 60_000
	}
	stamp := func(ms int64) string {
		return time.UnixMilli(tripleBegin + ms).UTC().Format("2006-01-02T15:04:05.000000+0000")
	}
	var b strings.Builder
	for i, x := range byEnd(list, wait) {
		_, header := x.headers()
		state := map[end]string{worked: "closed", wasReset: "closed", refused: "closed", silent: "new", gone: "established"}[x.end]
		if x.proto != "tcp" && x.end == worked {
			state = "established"
		}
		v := map[string]any{
			"timestamp": stamp(x.at + x.ms + wait(&x)), "flow_id": 1_000_000_000_000_000 + i, "in_iface": "eth0", "event_type": "flow",
			"src_ip": x.src, "dest_ip": x.dst, "proto": strings.ToUpper(x.proto),
			"flow": map[string]any{
				"pkts_toserver": x.pkts, "pkts_toclient": x.back, "bytes_toserver": x.sent + header*x.pkts,
				"bytes_toclient": x.got + header*x.back, "start": stamp(x.at), "end": stamp(x.at + x.ms), "age": x.ms / 1000,
				"state": state, "reason": "timeout", "alerted": false,
			},
		}
		if x.srcMAC != "" {
			v["ether"] = map[string]any{"src_macs": []string{x.srcMAC}, "dest_macs": []string{x.dstMAC}}
		}
		if x.proto == "icmp6" {
			v["proto"] = "IPv6-ICMP"
		}
		switch x.proto {
		case "icmp", "icmp6":
			v["icmp_type"], v["icmp_code"] = x.sport, x.dport
			if x.end == worked {
				v["response_icmp_type"], v["response_icmp_code"] = x.reply, 0
			}
		case "tcp", "udp":
			v["src_port"], v["dest_port"] = x.sport, x.dport
		}
		switch {
		case x.service == "ssl":
			v["app_proto"] = "tls"
		case x.service != "":
			v["app_proto"] = x.service
		case x.end == worked && (x.proto == "tcp" || x.proto == "udp"):
			v["app_proto"] = "failed"
		}
		if x.proto == "tcp" {
			flags := map[end][2]string{
				worked: {"1b", "1b"}, wasReset: {"1e", "1a"}, refused: {"02", "14"}, silent: {"02", "00"}, gone: {"1a", "1a"},
			}[x.end]
			tcp := map[string]any{
				"tcp_flags": flags[0], "tcp_flags_ts": flags[0], "tcp_flags_tc": flags[1], "syn": true,
				"state": map[end]string{worked: "closed", wasReset: "closed", refused: "closed", silent: "syn_sent", gone: "established"}[x.end],
			}
			v["tcp"] = tcp
		}
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		b.Write(append(text, '\n'))
	}
	return map[string]string{"eve.json": b.String()}
}

// argusCSV writes what "ra -n -Zb -c , -s stime dur proto saddr sport dir
// daddr dport state stos dtos pkts bytes sbytes spkts smac dmac" prints.
func argusCSV(list []exchange) map[string]string { return argus(list, true) }

// argusUsual writes the columns of the CTU-13 files, which tell the packets of
// both sides together.
func argusUsual(list []exchange) map[string]string { return argus(list, false) }

// argus writes flows sorted by time, as those do who keep such files.
func argus(list []exchange, full bool) map[string]string {
	var b strings.Builder
	more := ""
	if full {
		more = "SrcPkts,SrcMac,DstMac,"
	}
	b.WriteString("StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,sTos,dTos,TotPkts,TotBytes,SrcBytes," + more + "Label\n")
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b exchange) int { return cmp.Compare(a.at, b.at) })
	for _, x := range sorted {
		_, header := x.headers()
		dir, dtos := "   ->", "0"
		if x.back == 0 {
			dtos = ""
		}
		sport, dport := fmt.Sprint(x.sport), fmt.Sprint(x.dport)
		state := map[end]string{worked: "FSPA_FSPA", wasReset: "SRPA_SPA", refused: "S_RA", silent: "S_", gone: "SPA_SPA"}[x.end]
		switch x.proto {
		case "udp":
			state = map[end]string{worked: "CON", silent: "INT"}[x.end]
		case "icmp", "icmp6":
			// Type and code share the first cell; the second is the identifier.
			sport, dport = fmt.Sprintf("0x%04x", x.dport<<8|x.sport), fmt.Sprintf("0x%04x", 0x2d00|x.reply)
			state = map[int]string{8: "ECO", 128: "ECO", 13: "TST", 17: "MAS"}[x.sport]
		case "gre":
			sport, dport, state = "", "", map[end]string{worked: "CON", silent: "INT"}[x.end]
		}
		if x.proto != "tcp" && x.end == worked {
			dir = "  <->"
		}
		bytes, proto, more := x.sent+header*x.pkts, x.proto, ""
		if proto == "icmp6" {
			proto = "ipv6-icmp"
		}
		if full {
			more = fmt.Sprintf("%d,%s,%s,", x.pkts, x.srcMAC, x.dstMAC)
		}
		fmt.Fprintf(&b, "%s,%d.%03d000,%s,%s,%s,%s,%s,%s,%s,0,%s,%d,%d,%d,%s\n",
			time.UnixMilli(tripleBegin+x.at).UTC().Format("2006/01/02 15:04:05.000000"), x.ms/1000, x.ms%1000, proto, x.src, sport, dir,
			x.dst, dport, state, dtos, x.pkts+x.back, bytes+x.got+header*x.back, bytes, more)
	}
	return map[string]string{"flows.binetflow": b.String()}
}
