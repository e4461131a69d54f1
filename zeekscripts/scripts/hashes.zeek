# MD5 and SHA-1 of all files, certificates among them: the hashes that lists
# of malware and of certificates of command and control are made of.
# SPDX-License-Identifier: Apache-2.0

@load base/files/x509
@load frameworks/files/hash-all-files

# From Zeek 6 on certificates are left out of files.log, and x509.log has their
# SHA-256 alone, which those lists do not.
@ifdef ( X509::log_x509_in_files_log )
redef X509::log_x509_in_files_log = T;
@endif
