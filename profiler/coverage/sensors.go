package coverage

import "github.com/slips-go/slips/parsers/flow"

// suricata returns the name that an event has in the list eve-log.types of
// suricata.yaml; empty for what Suricata does not log.
func suricata(k flow.Kind) string {
	switch k { //nolint:exhaustive // Suricata has no such events as the others
	case flow.Conn:
		return "flow"
	case flow.DNS, flow.HTTP, flow.SSH, flow.SMTP, flow.FTP, flow.DHCP, flow.ARP, flow.QUIC, flow.RDP, flow.SMB:
		return k.String()
	case flow.SSL:
		return "tls"
	case flow.Files:
		return "files"
	case flow.Weird:
		return "anomaly"
	case flow.Kerberos:
		return "krb5"
	case flow.DCERPC:
		return "dcerpc"
	}
	return ""
}

// name returns what the records come from.
func (w *Watch) name() string {
	if w.meter != 0 {
		return "built-in meter"
	}
	return w.sensor().String()
}

// fieldHint says how a field is to be had; it is empty when the sensor is not
// expected to have it.
func (w *Watch) fieldHint(x thing) string {
	switch {
	case w.meter != 0:
		return ""
	case w.sensor() == flow.Zeek:
		return x.hint.String()
	case w.sensor() == flow.Suricata:
		switch x.name {
		case "ssl.ja3", "ssl.ja3s":
			return "app-layer.protocols.tls.ja3-fingerprints: yes, and extended: yes of tls in eve-log, in suricata.yaml"
		case "ssl.ja4":
			return "app-layer.protocols.tls.ja4-fingerprints: yes where this Suricata has it, and ja4 of tls in eve-log, in suricata.yaml"
		}
	}
	return ""
}

// unwritten reports whether the sensor as installed does not write a log,
// whatever the traffic.
func (w *Watch) unwritten(k flow.Kind) bool {
	if w.meter != 0 {
		return !w.meter.Has(k)
	}
	switch w.sensor() {
	case flow.Suricata:
		return suricata(k) == "" || k == flow.ARP // events of ARP have to be asked for
	case flow.Argus, flow.Nfdump:
		return true // they know connections alone
	case flow.Zeek:
	}
	// Our scripts show by what only they add, or hardly anybody else.
	scripts := w.scripts || w.there(flow.ARP) || w.there(flow.Login) || w.has("ssl.is_doh")
	return !scripts && (k == flow.ARP || k == flow.Login || k == flow.Software)
}

// logHint says how a log is to be had.
func (w *Watch) logHint(k flow.Kind) string {
	if w.meter != 0 {
		if w.meter.Has(k) {
			return "the built-in meter writes it when it sees such traffic"
		}
		return "the built-in meter does not write it; Zeek does (--engine zeek)"
	}
	switch w.sensor() {
	case flow.Suricata:
		if t := suricata(k); t != "" {
			return "add " + t + " to the types of eve-log in suricata.yaml"
		}
		return "Suricata does not log it; Zeek does"
	case flow.Argus, flow.Nfdump:
		return w.sensor().String() + " knows connections alone; Zeek and Suricata log more"
	case flow.Zeek:
	}
	switch {
	case w.unwritten(k) && k == flow.Software:
		return "@load policy/protocols/ssh/software, or " + install
	case w.unwritten(k):
		return install
	case k == flow.QUIC:
		return "Zeek 6.1 and later write it, if built with Spicy"
	}
	return "Zeek writes it when it sees such traffic, unless a script switches it off"
}
