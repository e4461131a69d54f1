# Scripts that come with Zeek and are not loaded by default.
# SPDX-License-Identifier: Apache-2.0

@load ./fields

@load misc/loaded-scripts
@load misc/capture-loss
@load misc/stats
@load frameworks/software/vulnerable
@load frameworks/software/version-changes
@load protocols/ftp/software
@load protocols/smtp/software
@load protocols/ssh/software
@load protocols/http/software
@load protocols/ftp/detect
@load protocols/ftp/detect-bruteforcing
@load protocols/ssh/detect-bruteforcing
@load protocols/ssh/geo-data
@load protocols/dns/detect-external-names
@load protocols/conn/known-hosts
@load protocols/conn/known-services
@load protocols/ssl/known-certs
@load protocols/ssl/validate-certs

# detect-sqli is the name of an older script that later versions drop.
@if ( Version::at_least("8.0.0") )
@load protocols/http/detect-sql-injection
@else
@load protocols/http/detect-sqli
@endif
