"""`iceprod-node pilot-bundle`: the pilot as one file or one directory for worker nodes."""

from __future__ import annotations

from pathlib import Path

import click

from iceprod_p2p.daemon_options import said_once
from iceprod_p2p.site import bundle


@click.command("pilot-bundle")
@click.argument("target", type=click.Path(path_type=Path), default=Path(bundle.FILE_NAME))
@click.option("--directory", is_flag=True, help="write a relocatable directory, not one file")
@click.option("--with", "more", multiple=True, metavar="DISTRIBUTION", help="carry this installed one too")
@said_once
def pilot_bundle(target: Path, more: tuple[str, ...], *, directory: bool) -> None:
    """Write the pilot with all that it needs, from what is installed here, for worker nodes without it.

    Try it there: python3 TARGET --version.  Name the place in site.toml as [queue] worker_bundle.
    """
    content = bundle.gather(more)
    if directory:
        bundle.write_directory(content, target)
    else:
        bundle.write_file(content, target)
    size = target.stat().st_size if target.is_file() else sum(p.stat().st_size for p in target.rglob("*"))
    click.echo(f"{target}: {size / 1_048_576:.1f} MiB, {len(content.files)} files; needs {content.needs()}.")
