"""`iceprod audit`: who did what, when, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, show_rows
from iceprod_cli.output.units import duration
from iceprod_cli.session import Session, output_options, pass_session
from iceprod_p2p.wire.pb import control_pb2

PAGE = 500


@click.command()
@click.option("--after", type=click.IntRange(0), default=0, help="only records after this log index")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=1_000, show_default=True, help="at the most"
)
@output_options
@pass_session
def audit(session: Session, after: int, limit: int) -> None:
    """Show who did what, and how long ago by the ledger's time, which stands still while the cluster has no leader."""
    columns = [
        Column("index", "index", right=True),
        Column("ago_ms", "ago", duration, right=True),
        Column("at_ms", "ledger time", duration, wide=True, right=True),
        Column("actor", "actor"),
        Column("what", "what"),
        Column("outcome", "outcome"),
    ]
    show_rows(session.style, _rows(session, after, limit), columns, name="index")


def _rows(session: Session, after: int, limit: int) -> Iterator[dict[str, Any]]:
    given = 0
    while given < limit:
        request = control_pb2.ListAuditRequest(
            read=session.read(), after=after, limit=min(PAGE, limit - given)
        )
        reply = session.call("ListAudit", request)
        rows = reply.rows
        for row in rows:
            yield {**plain(row), "ago_ms": max(0, reply.info.ledger_time_ms - row.at_ms)}
        given += len(rows)
        if not rows:
            return
        after = rows[-1].index
