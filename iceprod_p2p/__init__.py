"""IceProd P2P: a peer-to-peer production system (arXiv:1311.5904 without its central database)."""

__version__ = "0.1.0"
