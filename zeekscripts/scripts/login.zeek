# login.log: logins over telnet, rlogin and rsh, one record for each attempt.
# SPDX-License-Identifier: Apache-2.0
#
# Zeek follows the dialogue when it is told how prompts and answers look. The
# password itself is not logged, only that there was one.

module Login;

@ifdef ( Analyzer::ANALYZER_TELNET )
@ifndef ( Login::LOG )

export {
	redef enum Log::ID += { LOG };

	global log_policy: Log::PolicyHook;

	type Info: record {
		## When the login ended well or badly; for one that did neither, when
		## the connection began.
		ts: time &log;
		uid: string &log;
		id: conn_id &log;
		## Always tcp.
		proto: transport_proto &log &default=tcp;
		## "telnet", "rlogin" or "rsh".
		service: string &log &optional;
		## Whether the user was let in; unset when that was not seen.
		success: bool &log &optional;
		## Whether Zeek lost the thread of the dialogue.
		confused: bool &log &default=F;
		## The user on the server, and the one on the client where the protocol says.
		user: string &log &optional;
		client_user: string &log &optional;
		## Set when a password was typed.
		password: bool &log &optional;
	};

	## Raised for each record on its way to the log.
	global log_login: event(rec: Info);

	## The most records of one connection: a guesser need not hang up.
	option max_records = 100;

	## The longest name of a user, in bytes.
	option max_user = 128;

	const telnet_ports: set[port] = { 23/tcp, 2323/tcp } &redef;
	const rlogin_ports: set[port] = { 513/tcp } &redef;
	const rsh_ports: set[port] = { 514/tcp } &redef;
}

type Session: record {
	began: time;
	records: count &default=0;
	confused: bool &default=F;
	success: bool &default=F;
	typed: bool &default=F;
	user: string &default="";
	client_user: string &default="";
	password: bool &default=F;
};

redef record connection += {
	slips_login: Session &optional;
};

redef likely_server_ports += { telnet_ports, rlogin_ports, rsh_ports };

# Regular expressions, looked for anywhere in a line. None of the sets may be
# empty: to Zeek an empty one is in every line.
redef skip_authentication += { "[Nn]o (authentication|login|password) (is )?(required|needed)" };
redef direct_login_prompts += { "TERMINAL\\? *$" };
redef login_prompts += {
	"[Ll]ogin( name)?: *$", "[Ll]ogin( name)?: ", "LOGIN: *", "[Uu]ser ?[Nn]ame: *", "USERNAME: *", "[Uu]ser: *$", "[Aa]ccount: *$",
};
redef login_non_failure_msgs += {
	"[Ff]ail(ed|ures?).*since", "[Ll]ast .*(fail|unsuccessful)",
};
redef login_failure_msgs += {
	"[Ll]ogin (was )?(incorrect|failed|failure|invalid|denied)", "LOGIN (INCORRECT|FAILED)",
	"(incorrect|invalid|wrong|bad|Incorrect|Invalid|Wrong|Bad|Unknown|unknown) (login|user|user ?name|password|passwd|username or password|credentials)",
	"[Aa]uthenti(cation|fication) (failed|failure|error)", "[Aa]uthorization failure", "[Aa]ccess [Dd]enied", "[Pp]ermission denied",
	"[Ll]ogon failure", "[Nn]ot on system console", "User not found", "[Tt]oo many (failures|tries|attempts)",
};
redef login_success_msgs += {
	"[Ll]ast (interactive |successful )?login", "BusyBox v[0-9]", "[Yy]ou have (new |no )?mail", "^No mail", "[Ll]ogin [Ss]uccess",
	"^ *[A-Za-z0-9_.@:~/\[\] -]*[$#%>] *$",
};
redef login_timeouts += {
	"[Ll]ogin timed out", "[Tt]imeout (period )?expired", "[Tt]imed out waiting for",
};

event zeek_init() &priority=5
	{
	Log::create_stream(Login::LOG, Log::Stream($columns=Info, $ev=log_login, $path="login", $policy=log_policy));
	Analyzer::register_for_ports(Analyzer::ANALYZER_TELNET, telnet_ports);
	Analyzer::register_for_ports(Analyzer::ANALYZER_RLOGIN, rlogin_ports);
	Analyzer::register_for_ports(Analyzer::ANALYZER_RSH, rsh_ports);
	}

function session(c: connection): Session
	{
	if ( ! c?$slips_login )
		c$slips_login = Session($began=network_time());
	return c$slips_login;
	}

# "<none>" and "<timeout>" are the analyzer's words for nothing.
function given(s: string): string
	{
	if ( s == "<none>" || s == "<timeout>" )
		return "";
	return |s| > max_user ? s[0:max_user] : s;
	}

function service_of(p: port): string
	{
	if ( p in rlogin_ports )
		return "rlogin";
	return p in rsh_ports ? "rsh" : "telnet";
	}

function note_names(s: Session, user: string, client_user: string, password: string)
	{
	if ( given(user) != "" )
		s$user = given(user);
	if ( given(client_user) != "" )
		s$client_user = given(client_user);
	s$password = given(password) != "";
	}

function write(c: connection, s: Session, ts: time, success: string)
	{
	# Port 514 of TCP is syslog's more often than not. rsh says who calls.
	if ( c$id$resp_p in rsh_ports && s$client_user == "" || ++s$records > max_records )
		return;
	local r = Info($ts=ts, $uid=c$uid, $id=c$id, $service=service_of(c$id$resp_p));
	# The dialogue of rsh is one line, which always confuses the analyzer.
	r$confused = s$confused && r$service != "rsh";
	if ( success != "" )
		r$success = success == "T";
	if ( s$user != "" )
		r$user = s$user;
	if ( s$client_user != "" )
		r$client_user = s$client_user;
	if ( s$password && r$service != "rsh" ) # that is the command
		r$password = T;
	Log::write(Login::LOG, r);
	}

event login_failure(c: connection, user: string, client_user: string, password: string, line: string)
	{
	local s = session(c);
	note_names(s, user, client_user, password);
	write(c, s, network_time(), "F");
	}

# A connection that ends while the server still asks is a success to the
# analyzer; nobody saw it succeed.
event login_success(c: connection, user: string, client_user: string, password: string, line: string)
	{
	local s = session(c);
	note_names(s, user, client_user, password);
	if ( line == "<EOF>" )
		return;
	s$success = T;
	write(c, s, network_time(), "T");
	}

event login_confused(c: connection, msg: string, line: string)
	{
	session(c)$confused = T;
	}

event login_input_line(c: connection, line: string)
	{
	if ( |line| > 0 )
		session(c)$typed = T;
	}

event rsh_request(c: connection, client_user: string, server_user: string, line: string, new_session: bool)
	{
	local s = session(c);
	note_names(s, server_user, client_user, "");
	s$typed = T;
	}

# A server of rsh that refuses says why and hangs up.
event rsh_reply(c: connection, client_user: string, server_user: string, line: string)
	{
	local s = session(c);
	if ( s$records > 0 || |line| == 0 )
		return;
	note_names(s, server_user, client_user, "");
	local refused = /[Pp]ermission denied|[Ll]ogin incorrect|[Aa]ccess denied/ in line;
	s$success = ! refused;
	write(c, s, network_time(), refused ? "F" : "T");
	}

event connection_state_remove(c: connection)
	{
	if ( ! c?$slips_login )
		return;
	local s = c$slips_login;
	# An end without any outcome, or one in confusion, which is the rule for rsh.
	if ( s$records == 0 ? s$typed : (s$confused && ! s$success && service_of(c$id$resp_p) != "rsh") )
		write(c, s, s$began, "");
	}

@endif
@endif
