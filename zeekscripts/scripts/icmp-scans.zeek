# Notices of hosts that ask many others by ICMP who is there.
# SPDX-License-Identifier: Apache-2.0

@load base/frameworks/notice

module ICMP;

@ifndef ( ICMP::ICMPAddressScan )

export {
	redef enum Notice::Type += {
		## Echo requests to many hosts.
		ICMPAddressScan,
		## Timestamp messages (types 13 and 14) to many hosts.
		TimestampScan,
		## Address mask messages (types 17 and 18) to many hosts.
		AddressMaskScan,
	};

	## A notice comes with every so many new hosts.
	option scan_step = 5;

	## At this many hosts the count begins anew, which bounds what is kept of
	## one source.
	option scan_most = 255;

	## A source is forgotten when it has asked nothing for this long.
	const scan_idle = 1hr &redef;
}

# The peers of a source, by source and kind of scan.
global scan_peers: table[addr, Notice::Type] of set[addr] &read_expire=scan_idle;

const scan_names: table[Notice::Type] of string = {
	[ICMPAddressScan] = "Address",
	[TimestampScan] = "Timestamp",
	[AddressMaskScan] = "AddressMask",
};

function scanned(c: connection, note: Notice::Type, src: addr, dst: addr)
	{
	if ( [src, note] !in scan_peers )
		scan_peers[src, note] = set();
	local peers = scan_peers[src, note];
	if ( dst in peers )
		return;
	add peers[dst];
	local n = |peers|;
	if ( n % scan_step == 0 )
		NOTICE(Notice::Info($note=note, $src=src, $n=n, $conn=c,
		    $msg=fmt("%s performed ICMP %s scan on %d hosts", src, scan_names[note], n),
		    $identifier=cat(src, note, n)));
	if ( n >= scan_most )
		delete scan_peers[src, note];
	}

event icmp_echo_request(c: connection, info: icmp_info, id: count, seq: count, payload: string)
	{
	scanned(c, ICMPAddressScan, c$id$orig_h, c$id$resp_h);
	}

# Both the questions and the answers come here; an answer without its question
# has its sender as originator.
event icmp_sent(c: connection, info: icmp_info)
	{
	if ( info$v6 )
		return;
	switch ( info$itype )
		{
		case 13, 14:
			scanned(c, TimestampScan, c$id$orig_h, c$id$resp_h);
			break;
		case 17, 18:
			scanned(c, AddressMaskScan, c$id$orig_h, c$id$resp_h);
			break;
		}
	}

@endif
