"""`iceprod file`: list the files that tasks wrote, re-read them, and fetch them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, say, show_rows
from iceprod_cli.output.units import counted, size
from iceprod_cli.selectors import Selector, parse_selector
from iceprod_cli.session import Session, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup, examples
from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound
from iceprod_p2p.security.checksums import hash_file
from iceprod_p2p.wire.pb import control_pb2

PAGE = 500
EVERY_JOB = -2


@click.group(cls=CommandGroup)
def file() -> None:
    """List, verify and fetch files."""


COLUMNS = [
    Column("id", "file"),
    Column("size_bytes", "size", size, right=True),
    Column("sha256", "sha256", lambda digest: str(digest)[:16]),
    Column("kind", "kind", wide=True),
    Column("attempt", "attempt", wide=True, right=True),
    Column("sites", "sites", lambda sites: ", ".join(sites)),
]


@file.command(
    "list",
    epilog=examples(
        "iceprod file list 12 -o wide",
        "iceprod file list 12.0-99 --kind log",
        "iceprod file list 12 -o csv > files.csv",
    ),
)
@click.argument("selector")
@click.option("--kind", default="", help="permanent, job_temp, dataset_temp, site_temp or log")
@click.option(
    "--limit", type=click.IntRange(1, 100_000_000), default=1_000, show_default=True, help="at the most"
)
@output_options
@pass_session
def list_(session: Session, selector: str, kind: str, limit: int) -> None:
    """List the files of a dataset or job, such as 12 or 12.5."""
    rows = file_rows(session, parse_selector(selector), limit=limit)
    show_rows(session.style, (row for row in rows if not kind or row["kind"] == kind), COLUMNS, name="id")


def file_rows(session: Session, selector: Selector, *, limit: int) -> Iterator[dict[str, Any]]:
    """Yield the records of the selected files as plain rows."""
    given = 0
    for job in _jobs(selector):
        after = ""
        while given < limit:
            request = control_pb2.ListFilesRequest(
                read=session.read(),
                dataset=selector.dataset,
                job=job,
                after=after,
                limit=min(PAGE, limit - given),
            )
            reply = session.call("ListFiles", request)
            for row in reply.files:
                yield {"id": _file_id(row), **plain(row)}
            given += len(reply.files)
            after = reply.next_after
            if not after:
                break


def _file_id(row: control_pb2.FileRow) -> str:
    return f"{row.dataset}.{row.job if row.job >= 0 else '*'}/{row.name}"


def _jobs(selector: Selector) -> Iterator[int]:
    if not selector.ranges:
        yield EVERY_JOB
    for first, last in selector.ranges:
        yield from range(first, last + 1)


@file.command()
@click.argument("selector")
@output_options
@pass_session
def verify(session: Session, selector: str) -> None:
    """Read every stored copy again, also those at URLs, and compare its SHA-256; what is found is recorded.

    Exit code 1 if one differs or is missing.  Copies at URLs are read by the site that is asked, with its credentials.
    """
    rows = list(verified_rows(session, parse_selector(selector)))
    columns = [
        Column("id", "file"),
        Column("site", "site"),
        Column("url", "url"),
        Column("good", "good", lambda g: "yes" if g else "NO"),
        Column("sha256", "recorded", lambda digest: str(digest)[:16]),
        Column("found", "found"),
        Column("unrecorded", "not recorded"),
    ]
    bad = [row for row in rows if not row["good"]]
    unrecorded = [row["unrecorded"] for row in rows if row["unrecorded"]]
    if not session.style.for_people:
        show_rows(session.style, rows, columns, name="id")
    else:
        if bad or unrecorded:
            shown = [row for row in rows if not row["good"] or row["unrecorded"]]
            show_rows(session.style, shown, columns, name="id")
        say(f"{len(rows)} copies read, {len(bad)} bad")
    if unrecorded:
        say(f"of {len(unrecorded)} copies what was found could not be recorded: {unrecorded[0]}", err=True)
    if bad:
        raise click.exceptions.Exit(1)


def verified_rows(session: Session, selector: Selector) -> Iterator[dict[str, Any]]:
    """Yield what re-reading each copy of each selected file gave."""
    for job in _jobs(selector):
        request = control_pb2.VerifyFilesRequest(dataset=selector.dataset, job=job)
        for reply in session.connection.stream("VerifyFiles", request):
            yield {
                "id": _file_id(reply.file),
                "site": reply.site,
                "url": reply.url,
                "good": reply.good,
                "sha256": reply.file.sha256,
                "size_bytes": reply.file.size_bytes,
                "found": reply.found,
                "unrecorded": reply.unrecorded,
            }


@file.command(
    epilog=examples(
        "iceprod file get 12.5/merged.i3x                # one file, into this directory",
        "iceprod file get 12.5/merged.i3x --to m5.i3x    # by another name",
        "iceprod file get winter-2026 --to results       # all: results/job-5/merged.i3x and so on",
        "iceprod file get 12.0-99 --to results           # those of some jobs",
    )
)
@click.argument("name", metavar="FILE|SELECTOR")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="the file to write, or the directory for many"
)
@pass_session
def get(session: Session, name: str, target: Path | None) -> None:
    """Fetch files from any site that holds them; each checksum is compared.

    One file, such as 12.5/merged.i3x; or all permanent files of a dataset or of some jobs, such as 12 or 12.0-99, each
    below job-N in the directory --to.  What is there already with the right checksum is not fetched again.
    """
    place, slash, logical = name.partition("/")
    selector = parse_selector(place)
    if not slash:
        return _get_all(session, selector, target or Path())
    found = [row for row in file_rows(session, selector, limit=100_000) if row["name"] == logical]
    if not found:
        raise NotFound(
            f"there is no file {name!r}", remedy=f"`iceprod file list {place}` lists those there are"
        )
    _get_one(session, found[0], target or Path(Path(logical).name))


def _get_all(session: Session, selector: Selector, directory: Path) -> None:
    """Fetch every permanent file below `directory`; a name that leads out of it is refused."""
    rows = [row for row in file_rows(session, selector, limit=100_000_000) if row["kind"] == "permanent"]
    if not rows:
        raise NotFound(
            "there are no permanent files yet",
            remedy=f"`iceprod dataset show {selector.dataset}` tells how far it is",
        )
    there = 0
    for row in rows:
        parts = PurePosixPath(row["name"]).parts
        if ".." in parts or row["name"].startswith("/"):
            raise BadInput(
                f"the name of {row['id']} leads out of {directory}", remedy="fetch it by its name, --to"
            )
        path = directory.joinpath("dataset" if row["job"] < 0 else f"job-{row['job']}", *parts)
        if path.is_file() and hash_file(path).sha256 == row["sha256"]:
            there += 1
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise _unwritable(path, failure) from None
        _get_one(session, row, path)
    say(
        f"{counted(len(rows), 'file')} below {directory}" + (f", {there} of them were there" if there else "")
    )


def _get_one(session: Session, row: dict[str, Any], path: Path) -> None:
    try:
        _fetch(session, row["sha256"], path, name=row["id"])
    except OSError as failure:
        raise _unwritable(path, failure) from None
    say(f"{path}: {size(row['size_bytes'])}, sha256 {row['sha256']}")


def _unwritable(path: Path, failure: OSError) -> BadInput:
    return BadInput(f"cannot write {path}: {failure.strerror}", remedy="choose another place with --to")


def _fetch(session: Session, sha256: str, path: Path, *, name: str) -> None:
    """Write the content with this sum to `path`, whole or not at all; OSError when it cannot be written."""
    digest = hashlib.sha256()
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("wb") as out:
        try:
            for piece in session.connection.get_blob(sha256):
                digest.update(piece)
                out.write(piece)
            out.flush()
            if digest.hexdigest() != sha256:
                raise IntegrityError(
                    f"{name} arrived with SHA-256 {digest.hexdigest()}, recorded is {sha256}",
                    remedy=f"`iceprod file verify {name.partition('/')[0]}` tells which copies are good",
                )
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
