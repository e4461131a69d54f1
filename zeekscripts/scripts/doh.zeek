# is_doh in ssl.log: the server is a public resolver for DNS over HTTPS.
# SPDX-License-Identifier: Apache-2.0

@load base/protocols/ssl
@load ./doh-resolvers

module Slips;

export {
	## Connections to a resolver are kept this long without traffic: a browser
	## holds one open all day, and it should stay one connection.
	option doh_inactivity = 1hr;
}

# A package that brings the same mark may write it is_DoH.
@if ( "is_doh" !in record_fields(SSL::Info) && "is_DoH" !in record_fields(SSL::Info) )

redef record SSL::Info += {
	## Whether the server is a resolver for DNS over HTTPS.
	is_doh: bool &log &default=F;
};

# Goes up from label to label, as long as a second one is left.
function doh_named(name: string): bool
	{
	local rest = to_lower(name);
	while ( T )
		{
		if ( rest in doh_names )
			return T;
		local dot = strstr(rest, ".");
		if ( dot == 0 )
			return F;
		rest = rest[dot:];
		}
	return F;
	}

function doh_mark(c: connection)
	{
	if ( ! c?$ssl || c$ssl$is_doh || port_to_count(c$id$resp_p) != 443 )
		return;
	local dst = c$id$resp_h;
	if ( dst in doh_only || (c$ssl?$server_name ? doh_named(c$ssl$server_name) : dst in doh_also) )
		{
		c$ssl$is_doh = T;
		set_inactivity_timeout(c$id, doh_inactivity);
		}
	}

# The name comes before the hello.
event ssl_client_hello(c: connection, version: count, record_version: count, possible_ts: time, client_random: string, session_id: string, ciphers: index_vec, comp_methods: index_vec)
	{
	doh_mark(c);
	}

@endif
