"""What travels with a submission: the canonical document, and the sources beside the steering file as blobs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.client.submission import SOURCE_BYTES_MAX, pack, read_document

STEERING = """\
version: 3.2
tasks:
  - name: one
    trays: [{modules: [{name: a, src: "SRC"}, {name: b, src: "SRC"}]}]
"""


def steering(directory: Path, src: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "in.yaml").write_text(STEERING.replace("SRC", src))
    return directory / "in.yaml"


def test_a_local_source_becomes_a_blob_once_and_the_document_names_it(tmp_path: Path) -> None:
    path = steering(tmp_path / "in", "run.sh")
    (tmp_path / "in" / "run.sh").write_text("#!/bin/sh\n")
    packed = pack(read_document(path), path.parent)
    digest = hashlib.sha256(b"#!/bin/sh\n").hexdigest()
    assert packed.blobs == {digest: b"#!/bin/sh\n"}
    assert packed.document.decode().count(f"iceprod://sha256/{digest}/run.sh") == 2
    assert json.loads(packed.document)


@pytest.mark.parametrize(
    "src", ["https://example.org/run.sh", "$steering(script)", "iceprod://sha256/abc/run.sh"]
)
def test_sources_that_are_elsewhere_stay_as_they_are(tmp_path: Path, src: str) -> None:
    packed = pack(read_document(steering(tmp_path / "in", src)), tmp_path / "in")
    assert packed.blobs == {} and src in json.dumps(json.loads(packed.document))


@pytest.mark.parametrize("src", ["../secret", "/etc/passwd", "link"])
def test_nothing_outside_the_steering_files_directory_is_read(tmp_path: Path, src: str) -> None:
    path = steering(tmp_path / "in", src)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match="lies outside"):
        pack(read_document(path), path.parent)


def test_an_absent_or_huge_source_is_one_error(tmp_path: Path) -> None:
    path = steering(tmp_path / "in", "run.sh")
    with pytest.raises(BadInput, match=r"cannot read the module source 'run\.sh'"):
        pack(read_document(path), path.parent)
    with (tmp_path / "in" / "run.sh").open("wb") as file:
        file.truncate(SOURCE_BYTES_MAX + 1)
    with pytest.raises(BadInput, match="larger than 16 MiB"):
        pack(read_document(path), path.parent)


def test_a_document_without_tasks_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.yaml").write_text("version: 3.2\ntasks: []\n")
    with pytest.raises(BadInput, match=r"in\.yaml has no tasks"):
        read_document(tmp_path / "in.yaml")
