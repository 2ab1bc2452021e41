"""The servers of these tests, each started when the first test needs it and kept for all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from iceprod_p2p.transfers.credentials import Credential, Credentials
from iceprod_p2p.transfers.engine import Transfers
from iceprod_p2p.transfers.registry import Registry
from tests.grids.daemons import private_directory
from tests.transfers import storages
from tests.transfers.storages import Ground, Place

KINDS: dict[str, Callable[[Ground], Place]] = {
    "file": storages.LocalPlace,
    "https": storages.NginxPlace,
    "gsiftp": storages.GridftpPlace,
    "gsiftp-2": storages.SecondGridftpPlace,
    "root": storages.XrootdPlace,
    "root-2": storages.SecondXrootdPlace,
    "root-tokens": storages.XrootdTokenPlace,
    "s3": storages.S3Place,
    "s3-keys": storages.S3KeysPlace,
}


class Servers:
    """Gives places by name."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._known: dict[str, Place] = {}

    def place(self, name: str) -> Place:
        """Return a place, its server started now if need be."""
        known = self._known.get(name)
        if known is None:
            if name.startswith("davs"):
                behind = self.place(name.replace("davs", "root"))
                assert isinstance(behind, storages.XrootdPlace)
                known = storages.XrootdHttpsPlace(behind)
            else:
                known = KINDS[name](self.ground)
            self._known[name] = known
        return known


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """All servers of the session; they end with it."""
    root = private_directory("transfers")
    ground = storages.ground(root)
    yield Servers(ground)
    ground.daemons.stop_all()
    if request.session.testsfailed:
        print(ground.daemons.tail())
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def transfers(servers: Servers) -> Callable[..., Transfers]:
    """Make transfers with the credentials of the places given, perhaps by other ports."""

    def make(*places: Place, port: int | None = None) -> Transfers:
        return Transfers(Registry(Credentials([place.credentials(port) for place in places])))

    return make


@pytest.fixture
def moving() -> Callable[[Credential], Transfers]:
    """Make transfers with one credential."""
    return lambda credential: Transfers(Registry(Credentials([credential])))
