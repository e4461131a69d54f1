package useragent

import "testing"

// TestUsual compares the short way with the long one, and holds it to the
// agents that are common.
func TestUsual(t *testing.T) {
	const webkit = " AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 "
	for agent, short := range map[string]bool{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64)" + webkit + "Safari/537.36":                   true,
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64)" + webkit + "Safari/537.36 Edg/120.0.2210.91": true,
		"Mozilla/5.0 (Windows NT 6.1; WOW64)" + webkit + "Safari/537.36 OPR/106.0.0.0":           true,
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0":       true,
		"Mozilla/5.0 (Windows NT 6.3; WOW64; Trident/7.0; rv:11.0) like Gecko":                   false,
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)" + webkit + "Safari/537.36":             true,
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:128.0) Gecko/20100101 Firefox/128.0":   true,
		"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0":                 true,
		"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0":         true,
		"Mozilla/5.0 (Linux; Android 10; K)" + webkit + "Mobile Safari/537.36":                   true,
		"Mozilla/5.0 (Linux; Android 13; SM-S901B)" + webkit + "Mobile Safari/537.36":            false,
		"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0)" + webkit + "Safari/537.36":                    false,
		"Mozilla/5.0 (X11; FreeBSD amd64; rv:109.0) Gecko/20100101 Firefox/115.0":                false,
		"Mozilla/5.0 (Windows NT 10.0; Android 10)" + webkit + "Safari/537.36":                   false,
		"Mozilla/5.0 (Windows NT 10.0) sqlmap":                                                   false,
		"Mozilla/5.0 (Windows NT 10.0) pb":                                                       false,
		"Mozilla/5.0 (Windows NT 10.0) Chrome/120.0 HeadlessChrome/120.0":                        false,
		"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)":               false,
		"Mozilla/5.0 (Windows NT 10.0) ${jndi:x}":                                                false,
		"Mozilla/5.0 (":                   true,
		"Mozilla/5.0 ()":                  true,
		"Mozilla/5.0 (KHTML, like Gecko)": true,
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.2 Mobile/15E148 Safari/604.1": true,
		"Mozilla/5.0 (iPad; CPU OS 16_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.3 Mobile/15E148 Safari/604.1":          true,
	} {
		is, ok := usual(agent)
		if ok != short {
			t.Errorf("usual(%q) is %v", agent, ok)
		}
		if !ok {
			continue
		}
		if want, _ := parse(agent); is != want {
			t.Errorf("usual(%q) is of %v, parse says %v", agent, is, want)
		}
		if m := judge(agent); m.name != "" {
			t.Errorf("usual(%q) hides %q", agent, m.name)
		}
	}
}
