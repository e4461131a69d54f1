# Settings of a Zeek that Slips starts itself. An operator's own Zeek does not
# load this. SPDX-License-Identifier: Apache-2.0

@load ./fields
@load base/frameworks/logging
@load base/frameworks/software
@load base/utils/site

redef LogAscii::use_json = T;
redef LogAscii::json_timestamps = JSON::TS_EPOCH;

# Nothing of the machine's own configuration counts.
redef Log::default_rotation_postprocessor_cmd = "";

# A handshake that is not answered is a connection soon enough to count it.
redef tcp_attempt_delay = 1min;

# Banners of all hosts: those outside serve files too.
redef Software::asset_tracking = ALL_HOSTS;

# Loss is told soon enough to do something about it.
redef CaptureLoss::watch_interval = 5min;
redef CaptureLoss::initial_watch_interval = 1min;
redef Stats::report_interval = 1min;

module Slips;

export {
	## A path that is there as long as the Slips that started this Zeek is.
	const supervisor = "" &redef;

	## How often it is looked for.
	const supervisor_interval = 5sec &redef;

	## How often a live Zeek says that it lives.
	const sign_of_life = 5sec &redef;
}

# The kernel ends this Zeek with its supervisor, but not if the program has
# capabilities of its own. This looks after it from the inside.
event look_for_supervisor()
	{
	if ( file_size(supervisor) < 0.0 )
		terminate();
	else
		schedule supervisor_interval { look_for_supervisor() };
	}

# Said on standard error whatever the traffic, so that the supervisor notices
# soon when this Zeek hangs.
event say_alive()
	{
	if ( zeek_is_terminating() )
		return;
	print open("/dev/stderr"), "slips: zeek is alive";
	schedule sign_of_life { say_alive() };
	}

# An interface that went away gives errors for ever. Its Zeek ends, and the
# supervisor starts another one when the interface is back.
event reporter_error(t: time, msg: string, location: string)
	{
	if ( reading_live_traffic() && /failed to read a packet/ in msg )
		terminate();
	}

# Said on standard error, so that the supervisor knows that the scripts are
# compiled and the source of packets is open.
event zeek_init() &priority=-1000
	{
	print open("/dev/stderr"), "slips: zeek is ready";
	if ( reading_live_traffic() )
		schedule sign_of_life { say_alive() };
	if ( supervisor != "" )
		schedule supervisor_interval { look_for_supervisor() };
	}
