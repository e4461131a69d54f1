// Package all lists the modules. Only cmd and tests import it.
package all

import (
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/connnodns"
	"github.com/slips-go/slips/modules/dga"
	"github.com/slips-go/slips/modules/dnsnoconn"
	"github.com/slips-go/slips/modules/icmpscan"
	"github.com/slips-go/slips/modules/longconn"
	"github.com/slips-go/slips/modules/notice"
	"github.com/slips-go/slips/modules/portscan"
	"github.com/slips-go/slips/modules/portzero"
	"github.com/slips-go/slips/modules/reconnect"
	"github.com/slips-go/slips/modules/signature"
	"github.com/slips-go/slips/modules/sshguess"
	"github.com/slips-go/slips/modules/sshlogin"
	"github.com/slips-go/slips/modules/upload"
)

// Specs returns the modules in the order they run on each record. A module
// may rely on what those above it did to the profile, never on those below.
func Specs() []modules.Spec {
	return []modules.Spec{
		portscan.Spec, icmpscan.Spec, longconn.Spec, reconnect.Spec, portzero.Spec, upload.Spec, connnodns.Spec,
		dnsnoconn.Spec, dga.Spec, sshguess.Spec, sshlogin.Spec, notice.Spec, signature.Spec,
	}
}
