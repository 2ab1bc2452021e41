"""What crosses between processes: gRPC channels with mutual TLS, callers' identities, errors, messages."""

import os

# gRPC's C core writes every refused handshake to standard error; who knocks in vain must not fill an
# operator's disk.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
