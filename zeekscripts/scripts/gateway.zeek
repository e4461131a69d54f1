# The router that DHCP tells its clients. SPDX-License-Identifier: Apache-2.0

@load base/frameworks/notice
@load base/protocols/dhcp

module Slips;

export {
	redef enum Notice::Type += {
		## A server of DHCP named the router of its network, or a relay
		## that forwards for it stands in the network. The address is src.
		Gateway_addr_identified,
	};
}

@if ( "router" !in record_fields(DHCP::Info) )
redef record DHCP::Info += {
	## The first router that the server offered, option 3.
	router: addr &log &optional;
};

event DHCP::aggregate_msgs(ts: time, id: conn_id, uid: string, is_orig: bool, msg: DHCP::Msg, options: DHCP::Options)
	{
	if ( ! is_orig && options?$routers && |options$routers| > 0 )
		DHCP::log_info$router = options$routers[0];
	}
@endif

function gateway_seen(c: connection, a: addr)
	{
	if ( a == 0.0.0.0 )
		return;
	NOTICE(Notice::Info($note=Gateway_addr_identified, $src=a, $uid=c$uid,
	    $msg=fmt("Gateway address identified: %s", a), $identifier=cat(a)));
	}

# A forged answer could name anything: the address is told once a day (see
# Notice::default_suppression_interval), and whoever reads it decides.
event dhcp_message(c: connection, is_orig: bool, msg: DHCP::Msg, options: DHCP::Options)
	{
	if ( msg$op != 2 )
		return;
	if ( options?$routers && |options$routers| > 0 )
		gateway_seen(c, options$routers[0]);
	else
		gateway_seen(c, msg$giaddr);
	}
