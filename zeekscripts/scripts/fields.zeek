# What the other scripts share. SPDX-License-Identifier: Apache-2.0

@load base/misc/version

module Slips;

export {
	## Whether a number in a hello of TLS is one of the sixteen that RFC 8701
	## (GREASE) sets aside for clients to draw at random: 0x0a0a, 0x1a1a …
	global is_grease: function(n: count): bool;
}

# Both bytes are the same and end in a.
function is_grease(n: count): bool
	{
	return n < 65536 && n / 256 == n % 256 && n % 16 == 10;
	}
