"""From a URL's scheme to the storage that speaks it.

Beside the built-in ones, installed packages may bring theirs: an entry point in the group ``iceprod_p2p.transfers``,
its name the scheme, its value a callable that takes the site's `Credentials` and returns a `Storage`.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from typing import Final

from iceprod_p2p.base.errors import BadInput, IceProdError
from iceprod_p2p.transfers.credentials import Credentials
from iceprod_p2p.transfers.local import LocalStorage
from iceprod_p2p.transfers.storage import Storage
from iceprod_p2p.transfers.url import Url

ENTRY_POINT_GROUP: Final = "iceprod_p2p.transfers"
_BUILT_IN: Final = {  # Imported when the first URL needs them: a pilot that starts carries none.
    **dict.fromkeys(("http", "https", "dav", "davs"), "iceprod_p2p.transfers.http.HttpStorage"),
    **dict.fromkeys(("root", "roots", "xroot", "xroots"), "iceprod_p2p.transfers.xrootd.XrootdStorage"),
    "gsiftp": "iceprod_p2p.transfers.gridftp.GridftpStorage",
    "s3": "iceprod_p2p.transfers.s3.S3Storage",
}
SCHEMES: Final = ("file", *_BUILT_IN)


class Registry:
    """The storages of one process, with the credentials of its site.  Thread-safe."""

    def __init__(
        self, credentials: Credentials | None = None, *, also: Mapping[str, Storage] | None = None
    ) -> None:
        """`also` brings storages that only the caller can make, such as the cluster's own blobs."""
        self.credentials = credentials or Credentials()
        self._lock = threading.Lock()
        self._known: dict[str, Storage] = {"file": LocalStorage(), **(also or {})}

    def storage(self, url: Url) -> Storage:
        """Return the storage for a URL; BadInput, naming the schemes there are, when none speaks it."""
        with self._lock:
            known = self._known.get(url.scheme)
            if known is None:
                known = self._known[url.scheme] = self._make(url)
            return known

    def _make(self, url: Url) -> Storage:
        dotted = _BUILT_IN.get(url.scheme)
        if dotted is not None:
            for scheme, storage in self._known.items():
                if _BUILT_IN.get(scheme) == dotted:
                    return storage
            package, _, name = dotted.rpartition(".")
            made: Storage = getattr(importlib.import_module(package), name)(self.credentials)
            return made
        from importlib.metadata import entry_points  # It costs 30 ms, and the built-in ones never need it.

        found = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == url.scheme]
        if not found:
            raise BadInput(f"{url} has a scheme that is not known", remedy=f"use one of {', '.join(SCHEMES)}")
        try:
            storage = found[0].load()(self.credentials)
        except IceProdError:
            raise
        except Exception as fault:  # An installed package may raise anything.
            raise BadInput(
                f"the package that should speak {url.scheme} failed: {type(fault).__name__}: {fault}"
            ) from fault
        if not isinstance(storage, Storage):
            raise BadInput(f"what speaks {url.scheme} is no iceprod_p2p.transfers.storage.Storage")
        return storage
