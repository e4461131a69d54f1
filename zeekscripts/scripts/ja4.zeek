# JA4, the fingerprint of the ClientHello that does not depend on the order in
# which the client lists what it can do, in ssl.log.
# SPDX-License-Identifier: Apache-2.0
#
# Written from FoxIO's technical description of JA4, which is free to use. JA4S
# and the others of that family are not, and are left out.
#
#   a: t (TCP), q (QUIC) or d (DTLS); the highest version offered; d if a server
#      is named, else i; number of ciphers and of extensions in two digits; first
#      and last character of the first protocol of ALPN, 00 without
#   b: SHA-256 of the ciphers in ascending order, its first 12 digits
#   c: the same of the extensions, but for server name and ALPN, and of the
#      signature algorithms as they come
#
# GREASE counts nowhere.

@load base/protocols/ssl
@load ./fields

module Slips;

@if ( "ja4" !in record_fields(SSL::Info) )

export {
	## The most numbers of one list of a hello that go into a fingerprint: a
	## hello of 64 KiB could list 32,768. No client offers half of this.
	option ja4_max_list = 512;
}

type JA4Hello: record {
	exts: vector of count &default=vector();
	versions: vector of count &default=vector();
	algs: vector of string &default=vector();
	alpn: string &default="";
};

redef record SSL::Info += {
	## JA4 fingerprint of the ClientHello.
	ja4: string &log &optional;
};

redef record connection += {
	slips_ja4: JA4Hello &optional;
};

const ja4_versions: table[count] of string = {
	[0x0304] = "13", [0x0303] = "12", [0x0302] = "11", [0x0301] = "10", [0x0300] = "s3", [0x0002] = "s2",
	[0xfeff] = "d1", [0xfefd] = "d2", [0xfefc] = "d3",
} &default="00";

# Those of DTLS count down.
function ja4_newer(a: count, b: count): bool
	{
	if ( a / 256 == 0xfe && b / 256 == 0xfe )
		return a < b;
	return a > b;
	}

function ja4_hash(text: string): string
	{
	return |text| == 0 ? "000000000000" : sha256_hash(text)[0:12];
	}

# The numbers of a list without GREASE.
function ja4_plain(list: vector of count): vector of count
	{
	local out: vector of count = vector();
	for ( i in list )
		{
		if ( ! is_grease(list[i]) && |out| < ja4_max_list )
			out += list[i];
		}
	return out;
	}

function ja4_hex(list: vector of count): string
	{
	local text: string_vec = vector();
	for ( i in list )
		text += fmt("%04x", list[i]);
	return join_string_vec(text, ",");
	}

function ja4_ends(alpn: string): string
	{
	if ( |alpn| == 0 )
		return "00";
	if ( alpn[0] == /[0-9A-Za-z]/ && alpn[-1] == /[0-9A-Za-z]/ )
		return alpn[0] + alpn[-1];
	local hex = bytestring_to_hexstr(alpn);
	return hex[0] + hex[-1];
	}

function ja4_of(c: connection): JA4Hello
	{
	if ( ! c?$slips_ja4 )
		c$slips_ja4 = JA4Hello();
	return c$slips_ja4;
	}

# The first hello counts: the one after a HelloRetryRequest answers to it.
function ja4_wanted(c: connection, is_client: bool): bool
	{
	return is_client && ! (c?$ssl && c$ssl?$ja4);
	}

event ssl_extension(c: connection, is_client: bool, code: count, val: string)
	{
	if ( ja4_wanted(c, is_client) && |ja4_of(c)$exts| < ja4_max_list )
		c$slips_ja4$exts += code;
	}

event ssl_extension_supported_versions(c: connection, is_client: bool, versions: index_vec)
	{
	if ( ja4_wanted(c, is_client) )
		ja4_of(c)$versions = versions;
	}

event ssl_extension_application_layer_protocol_negotiation(c: connection, is_client: bool, protocols: string_vec)
	{
	if ( ja4_wanted(c, is_client) && |protocols| > 0 )
		ja4_of(c)$alpn = protocols[0];
	}

event ssl_extension_signature_algorithm(c: connection, is_client: bool, signature_algorithms: signature_and_hashalgorithm_vec)
	{
	if ( ! ja4_wanted(c, is_client) )
		return;
	local h = ja4_of(c);
	for ( i in signature_algorithms )
		{
		local n = signature_algorithms[i]$HashAlgorithm * 256 + signature_algorithms[i]$SignatureAlgorithm;
		if ( ! is_grease(n) && |h$algs| < ja4_max_list )
			h$algs += fmt("%04x", n);
		}
	}

event ssl_client_hello(c: connection, version: count, record_version: count, possible_ts: time, client_random: string, session_id: string, ciphers: index_vec, comp_methods: index_vec)
	{
	# A record version of 0 is Zeek's for a hello of SSL 2, whose ciphers are others.
	if ( ! c?$ssl || c$ssl?$ja4 || record_version == 0 )
		return;
	local h = ja4_of(c);
	local kind = "t";
	if ( "QUIC" in c$service )
		kind = "q";
	else if ( get_port_transport_proto(c$id$resp_p) == udp )
		kind = version / 256 == 0xfe ? "d" : "q";

	local highest = version;
	local offered = ja4_plain(h$versions);
	if ( |offered| > 0 )
		{
		highest = offered[0];
		for ( i in offered )
			{
			if ( ja4_newer(offered[i], highest) )
				highest = offered[i];
			}
		}
	local all_ciphers = ja4_plain(ciphers);
	local all_exts = ja4_plain(h$exts);
	local exts: vector of count = vector();
	local named = F;
	for ( j in all_exts )
		{
		if ( all_exts[j] == 0 )
			named = T;
		else if ( all_exts[j] != 16 )
			exts += all_exts[j];
		}
	sort(exts);
	local n_ciphers = |all_ciphers|;
	sort(all_ciphers);
	local tail = ja4_hex(exts);
	if ( |tail| > 0 && |h$algs| > 0 )
		tail = tail + "_" + join_string_vec(h$algs, ",");
	c$ssl$ja4 = fmt("%s%s%s%02d%02d%s_%s_%s", kind, ja4_versions[highest], named ? "d" : "i",
	    n_ciphers > 99 ? 99 : n_ciphers, |all_exts| > 99 ? 99 : |all_exts|, ja4_ends(h$alpn),
	    ja4_hash(ja4_hex(all_ciphers)), ja4_hash(tail));
	delete c$slips_ja4;
	}

@endif
