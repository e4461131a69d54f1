# Scripts of Slips for Zeek 6 to 9. SPDX-License-Identifier: Apache-2.0
#
# They add fields and logs that Slips looks for, and change nothing else: not
# the format of the logs, not the local networks. Load the folder last in
# local.zeek, behind packages that may bring the same fields: what is already
# there is left to them.

@load ./fields
@load ./policy
@load ./link
@load ./hashes
@load ./ja3
@load ./ja4
@load ./arp
@load ./icmp-scans
@load ./doh
@load ./login
@load ./gateway
