"""`iceprod file`: list the files that tasks wrote, re-read them, and fetch them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, say, show_rows
from iceprod_cli.output.units import size
from iceprod_cli.selectors import Selector, parse_selector
from iceprod_cli.session import Session, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound
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


@file.command("list")
@click.argument("selector")
@click.option("--kind", default="", help="permanent, job_temp, dataset_temp, site_temp or log")
@click.option("--limit", type=click.IntRange(1, 100_000_000), default=1_000, show_default=True)
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
    ]
    show_rows(
        session.style,
        rows if not session.style.for_people else [r for r in rows if not r["good"]],
        columns,
        name="id",
    )
    bad = sum(not row["good"] for row in rows)
    if session.style.for_people:
        say(f"{len(rows)} copies read, {bad} bad")
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
            }


@file.command()
@click.argument("name")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="where to write it; its own name by default"
)
@pass_session
def get(session: Session, name: str, target: Path | None) -> None:
    """Fetch one file, such as 12.5/merged.i3x, from any site that holds it; its checksum is compared."""
    place, slash, logical = name.partition("/")
    selector = parse_selector(place)
    if not slash or not logical:
        raise BadInput(f"{name!r} does not name a file", remedy="write it as 12.5/NAME")
    found = [row for row in file_rows(session, selector, limit=100_000) if row["name"] == logical]
    if not found:
        raise NotFound(
            f"there is no file {name!r}", remedy=f"`iceprod file list {place}` lists those there are"
        )
    path = target or Path(Path(logical).name)
    try:
        _fetch(session, found[0]["sha256"], path, name=name)
    except OSError as failure:
        raise BadInput(
            f"cannot write {path}: {failure.strerror}", remedy="choose another place with --to"
        ) from None
    say(f"{path}: {size(found[0]['size_bytes'])}, sha256 {found[0]['sha256']}")


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
