"""IceProd P2P: a peer-to-peer production system (arXiv:1311.5904 without its central database)."""

import os

__version__ = "0.1.0"

# gRPC's C core reads this once, when it is first imported, and would write every refused handshake to standard
# error: who knocks in vain must not fill an operator's disk.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
