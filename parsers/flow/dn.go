package flow

import "strings"

// Attribute returns the first value of an attribute in a distinguished name of
// a certificate, as the sensor escapes it: Attribute("CN=a,O=b", "O") is "b".
// The case of key does not matter. The result aliases dn.
func Attribute(dn, key string) string {
	for len(dn) > 0 {
		end := 0
		for end < len(dn) && dn[end] != ',' {
			if dn[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end, len(dn))
		part := strings.TrimLeft(dn[:end], " ")
		if len(part) > len(key) && part[len(key)] == '=' && strings.EqualFold(part[:len(key)], key) {
			return part[len(key)+1:]
		}
		dn = dn[min(end+1, len(dn)):]
	}
	return ""
}

// CommonName returns the common name in a distinguished name, or all of it
// where it has none.
func CommonName(dn string) string {
	if cn := Attribute(dn, "CN"); cn != "" {
		return cn
	}
	return dn
}

// SelfIssued reports whether the issuer of a certificate is its subject. Some
// kits write a different address around the same common name.
func SelfIssued(subject, issuer string) bool {
	if subject == "" || issuer == "" {
		return false
	}
	if subject == issuer {
		return true
	}
	cn := Attribute(subject, "CN")
	return cn != "" && cn == Attribute(issuer, "CN")
}
