# MAC addresses, VLANs and the community id in conn.log, by scripts of Zeek.
# SPDX-License-Identifier: Apache-2.0

@load protocols/conn/mac-logging
@load protocols/conn/vlan-logging
@load protocols/conn/community-id-logging
