"""Files by URL: one small interface for each kind of storage, one engine that copies, repeats, resumes and verifies.

url          what a URL is, and how it is shown without what may be secret in it
limits       how long, how often, how much; the watch that breaks off what stands still
sums         checksums of files and streams
storage      the interface that every kind of storage has
local, http, s3, xrootd, gridftp     the kinds
credentials  which keys, tokens and certificates go to which server
registry     scheme -> storage; installed packages may add theirs
engine       copy and measure
"""
