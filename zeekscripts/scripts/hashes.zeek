# MD5 and SHA-1 of all files, certificates among them: the hashes that lists
# of malware and of certificates of command and control are made of.
# SPDX-License-Identifier: Apache-2.0

@load frameworks/files/hash-all-files
