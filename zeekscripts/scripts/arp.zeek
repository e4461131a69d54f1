# arp.log: every request and reply. SPDX-License-Identifier: Apache-2.0

module ARP;

# A package that brings a log of ARP has this name for it too.
@ifndef ( ARP::LOG )

export {
	redef enum Log::ID += { LOG };

	global log_policy: Log::PolicyHook;

	type Info: record {
		## When the message was seen.
		ts: time &log;
		## "request" or "reply".
		operation: string &log;
		## Addresses of the Ethernet frame.
		src_mac: string &log;
		dst_mac: string &log;
		## Protocol addresses inside the message: of the sender and the target.
		orig_h: addr &log;
		resp_h: addr &log;
		## Hardware addresses inside the message: of the sender and the target.
		orig_hw: string &log;
		resp_hw: string &log;
	};

	## Raised for each record on its way to the log.
	global log_arp: event(rec: Info);
}

event zeek_init() &priority=5
	{
	Log::create_stream(ARP::LOG, Log::Stream($columns=Info, $ev=log_arp, $path="arp", $policy=log_policy));
	}

event arp_request(mac_src: string, mac_dst: string, SPA: addr, SHA: string, TPA: addr, THA: string)
	{
	Log::write(ARP::LOG, Info($ts=network_time(), $operation="request", $src_mac=mac_src, $dst_mac=mac_dst,
	    $orig_h=SPA, $resp_h=TPA, $orig_hw=SHA, $resp_hw=THA));
	}

event arp_reply(mac_src: string, mac_dst: string, SPA: addr, SHA: string, TPA: addr, THA: string)
	{
	Log::write(ARP::LOG, Info($ts=network_time(), $operation="reply", $src_mac=mac_src, $dst_mac=mac_dst,
	    $orig_h=SPA, $resp_h=TPA, $orig_hw=SHA, $resp_hw=THA));
	}

@endif
