"""`iceprod unmonitored`: jobs that ran through a batch system without a cluster, by the files that they left."""

from __future__ import annotations

import time
from pathlib import Path

import click

from iceprod_cli.output.show import Column, show_rows
from iceprod_cli.session import Session, output_options, pass_session

POLL_S = 2.0
DOUBTS_MAX = 30  # So often the batch system may not list what has left no answer: a minute.
GONE_LOOKS = 5  # So often it is looked for again after its end: shared directories show what is written late.
COLUMNS = [
    Column("job", "job", right=True),
    Column("state", "state"),
    Column("grid_job", "grid job"),
    Column("message", "message"),
]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--wait", is_flag=True, help="until every job has ended; exit code 6 unless all are complete")
@output_options
@pass_session
def unmonitored(session: Session, directory: Path, wait: bool) -> None:
    """Show the jobs that `iceprod submit --unmonitored --dir DIRECTORY` has submitted."""
    from iceprod_cli.unmonitored import UNKNOWN, gathered

    rows, doubts = gathered(directory), 0
    while wait:
        going = {row["state"] for row in rows} - {"complete", "failed"}
        if not going or doubts >= (DOUBTS_MAX if UNKNOWN in going else GONE_LOOKS):
            break
        doubts = doubts + 1 if going <= {UNKNOWN, "gone"} else 0
        time.sleep(POLL_S)
        rows = gathered(directory)
    show_rows(session.style, rows, COLUMNS, name="job")
    if wait and any(row["state"] != "complete" for row in rows):
        raise click.exceptions.Exit(6)
