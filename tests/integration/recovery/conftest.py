"""One cluster for all tests of recovery: each begins when three vote and agree, and leaves it so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import IceProdError
from tests.integration.recovery.cluster import Trio


class Present:
    """The cluster in use; one that a failed test left broken is given up for another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._trio: Trio | None = None

    def healthy(self) -> Trio:
        """Return the cluster, whole."""
        if self._trio is not None:
            try:
                self._trio.wait_healthy()
            except (AssertionError, IceProdError):
                self.end()
        if self._trio is None:
            self._number += 1
            self._trio = Trio(self._directory / f"trio-{self._number}")
            self._trio.build()
        return self._trio

    def end(self) -> None:
        """Leave nothing behind."""
        if self._trio is not None:
            self._trio.end()
        self._trio = None


@pytest.fixture(scope="session")
def present(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Present]:
    found = Present(tmp_path_factory.mktemp("recovery"))
    yield found
    found.end()


@pytest.fixture
def trio(present: Present) -> Trio:
    return present.healthy()
