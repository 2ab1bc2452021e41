"""The directory server that the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.people.directory_system import DirectorySystem, have_slapd


@pytest.fixture(scope="session")
def directory_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectorySystem]:
    """A running slapd; whoever stops it starts it again."""
    if not have_slapd():
        pytest.skip(
            "slapd is not installed (Debian: apt-get install slapd); people's directory is not tested"
        )
    system = DirectorySystem(tmp_path_factory.mktemp("slapd"))
    system.make()
    system.start()
    yield system
    system.stop()
