# JA3 and JA3S, the fingerprints of the hellos of TLS, in ssl.log.
# SPDX-License-Identifier: Apache-2.0
#
# JA3 is the MD5 of "version,ciphers,extensions,curves,point formats", JA3S
# that of "version,cipher,extensions": decimal numbers in the order of the
# hello with "-" between them, values of GREASE left out of every list. The
# version is the one in the hello itself, not that of an extension. After a
# HelloRetryRequest the first ClientHello and the real ServerHello count.

@load base/protocols/ssl
@load ./fields

module Slips;

@if ( "ja3" !in record_fields(SSL::Info) && "ja3s" !in record_fields(SSL::Info) )

export {
	## The most numbers of one list of a hello that go into a fingerprint: a
	## hello of 64 KiB could list 32,768. No client offers half of this.
	option ja3_max_list = 512;
}

type JA3Hello: record {
	exts: vector of count &default=vector();
	curves: vector of count &default=vector();
	formats: vector of count &default=vector();
};

redef record SSL::Info += {
	## MD5 fingerprint of the ClientHello.
	ja3: string &log &optional;
	## MD5 fingerprint of the ServerHello.
	ja3s: string &log &optional;
};

redef record connection += {
	slips_ja3_client: JA3Hello &optional;
	slips_ja3_server: JA3Hello &optional;
};

# The random of a ServerHello that only asks to try again (RFC 8446, 4.1.3).
const ja3_hello_retry = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c";

function ja3_dashed(list: vector of count): string
	{
	local text: string_vec = vector();
	for ( i in list )
		{
		if ( ! is_grease(list[i]) && |text| < ja3_max_list )
			text += cat(list[i]);
		}
	return join_string_vec(text, "-");
	}

# Extensions are announced before the hello they stand in.
event ssl_extension(c: connection, is_client: bool, code: count, val: string)
	{
	if ( ! c?$ssl || (is_client ? c$ssl?$ja3 : c$ssl?$ja3s) )
		return;
	if ( is_client )
		{
		if ( ! c?$slips_ja3_client )
			c$slips_ja3_client = JA3Hello();
		if ( |c$slips_ja3_client$exts| < ja3_max_list )
			c$slips_ja3_client$exts += code;
		}
	else
		{
		if ( ! c?$slips_ja3_server )
			c$slips_ja3_server = JA3Hello();
		if ( |c$slips_ja3_server$exts| < ja3_max_list )
			c$slips_ja3_server$exts += code;
		}
	}

event ssl_extension_elliptic_curves(c: connection, is_client: bool, curves: index_vec)
	{
	if ( ! is_client || (c?$ssl && c$ssl?$ja3) )
		return;
	if ( ! c?$slips_ja3_client )
		c$slips_ja3_client = JA3Hello();
	c$slips_ja3_client$curves = curves;
	}

event ssl_extension_ec_point_formats(c: connection, is_client: bool, point_formats: index_vec)
	{
	if ( ! is_client || (c?$ssl && c$ssl?$ja3) )
		return;
	if ( ! c?$slips_ja3_client )
		c$slips_ja3_client = JA3Hello();
	c$slips_ja3_client$formats = point_formats;
	}

event ssl_client_hello(c: connection, version: count, record_version: count, possible_ts: time, client_random: string, session_id: string, ciphers: index_vec, comp_methods: index_vec)
	{
	# A record version of 0 is Zeek's for a hello of SSL 2, which has no JA3.
	if ( ! c?$ssl || c$ssl?$ja3 || record_version == 0 )
		return;
	local h = c?$slips_ja3_client ? c$slips_ja3_client : JA3Hello();
	c$ssl$ja3 = md5_hash(fmt("%d,%s,%s,%s,%s", version, ja3_dashed(ciphers), ja3_dashed(h$exts),
	    ja3_dashed(h$curves), ja3_dashed(h$formats)));
	delete c$slips_ja3_client;
	}

event ssl_server_hello(c: connection, version: count, record_version: count, possible_ts: time, server_random: string, session_id: string, cipher: count, comp_method: count)
	{
	if ( c?$ssl && ! c$ssl?$ja3s && version != 2 && server_random != ja3_hello_retry )
		{
		local h = c?$slips_ja3_server ? c$slips_ja3_server : JA3Hello();
		c$ssl$ja3s = md5_hash(fmt("%d,%d,%s", version, cipher, ja3_dashed(h$exts)));
		}
	delete c$slips_ja3_server;
	}

@endif
