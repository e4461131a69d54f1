// Package all lists the modules. Only cmd and tests import it.
package all

import (
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/adabuse"
	"github.com/slips-go/slips/modules/arpoutside"
	"github.com/slips-go/slips/modules/arpscan"
	"github.com/slips-go/slips/modules/arpspoof"
	"github.com/slips-go/slips/modules/beacon"
	"github.com/slips-go/slips/modules/bruteforce"
	"github.com/slips-go/slips/modules/certificate"
	"github.com/slips-go/slips/modules/certname"
	"github.com/slips-go/slips/modules/cleartext"
	"github.com/slips-go/slips/modules/connnodns"
	"github.com/slips-go/slips/modules/ddos"
	"github.com/slips-go/slips/modules/dga"
	"github.com/slips-go/slips/modules/dhcpscan"
	"github.com/slips-go/slips/modules/dnsarpa"
	"github.com/slips-go/slips/modules/dnsentropy"
	"github.com/slips-go/slips/modules/dnsflood"
	"github.com/slips-go/slips/modules/dnsinvalid"
	"github.com/slips-go/slips/modules/dnsnoconn"
	"github.com/slips-go/slips/modules/dnstunnel"
	"github.com/slips-go/slips/modules/doh"
	"github.com/slips-go/slips/modules/download"
	"github.com/slips-go/slips/modules/gre"
	"github.com/slips-go/slips/modules/httpempty"
	"github.com/slips-go/slips/modules/httpmethod"
	"github.com/slips-go/slips/modules/httptraffic"
	"github.com/slips-go/slips/modules/icmpscan"
	"github.com/slips-go/slips/modules/ipchange"
	"github.com/slips-go/slips/modules/ipcheck"
	"github.com/slips-go/slips/modules/lateral"
	"github.com/slips-go/slips/modules/localnet"
	"github.com/slips-go/slips/modules/login"
	"github.com/slips-go/slips/modules/longconn"
	"github.com/slips-go/slips/modules/mining"
	"github.com/slips-go/slips/modules/multiport"
	"github.com/slips-go/slips/modules/notice"
	"github.com/slips-go/slips/modules/p2p"
	"github.com/slips-go/slips/modules/portproto"
	"github.com/slips-go/slips/modules/portscan"
	"github.com/slips-go/slips/modules/portzero"
	"github.com/slips-go/slips/modules/privateip"
	"github.com/slips-go/slips/modules/ransom"
	"github.com/slips-go/slips/modules/raresig"
	"github.com/slips-go/slips/modules/reconnect"
	"github.com/slips-go/slips/modules/remoteaccess"
	"github.com/slips-go/slips/modules/reputation"
	"github.com/slips-go/slips/modules/signature"
	"github.com/slips-go/slips/modules/slowscan"
	"github.com/slips-go/slips/modules/smtplogin"
	"github.com/slips-go/slips/modules/spambot"
	"github.com/slips-go/slips/modules/sshlogin"
	"github.com/slips-go/slips/modules/sshversion"
	"github.com/slips-go/slips/modules/threatintel"
	"github.com/slips-go/slips/modules/torlike"
	"github.com/slips-go/slips/modules/unknownport"
	"github.com/slips-go/slips/modules/upload"
	"github.com/slips-go/slips/modules/useragent"
	"github.com/slips-go/slips/modules/youngdomain"
)

// Specs returns the modules in the order they run on each record. A module
// may rely on what those above it did to the profile, never on those below.
func Specs() []modules.Spec {
	return []modules.Spec{
		portscan.Spec, slowscan.Spec, icmpscan.Spec, arpscan.Spec, dhcpscan.Spec, longconn.Spec, beacon.Spec,
		reconnect.Spec, unknownport.Spec, multiport.Spec, portzero.Spec, portproto.Spec, privateip.Spec, localnet.Spec,
		ipchange.Spec, upload.Spec, ddos.Spec, connnodns.Spec, dnsnoconn.Spec, dnsflood.Spec, dga.Spec, dnstunnel.Spec,
		dnsentropy.Spec, dnsinvalid.Spec, youngdomain.Spec, dnsarpa.Spec, doh.Spec, ipcheck.Spec, certificate.Spec, certname.Spec, torlike.Spec,
		raresig.Spec, useragent.Spec, httpempty.Spec, httpmethod.Spec, httptraffic.Spec, download.Spec, threatintel.Spec, reputation.Spec, cleartext.Spec,
		mining.Spec, remoteaccess.Spec, spambot.Spec, smtplogin.Spec, bruteforce.Spec, sshlogin.Spec, sshversion.Spec,
		login.Spec, lateral.Spec, ransom.Spec, adabuse.Spec, arpoutside.Spec, arpspoof.Spec, gre.Spec, p2p.Spec, notice.Spec,
		signature.Spec,
	}
}
