"""`iceprod run-local`: one job in the foreground on this machine, without a cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from iceprod_cli.output.show import safe, say, show_object
from iceprod_cli.output.units import size
from iceprod_cli.session import Session, output_options, pass_session
from iceprod_p2p.base.command_help import examples
from iceprod_p2p.base.errors import BadInput

RUNNER = "iceprod_pilot.local"  # A process of its own: it adopts orphans and kills what tasks leave behind.


@click.command(
    "run-local",
    epilog=examples(
        "iceprod run-local chain.yaml --log                # job 0, with what its tasks print",
        "iceprod run-local chain.yaml --job 7 --task merge --keep",
        "iceprod run-local chain.yaml --dagman dag-7 --job 7",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--job", type=click.IntRange(0, 2**31), default=0, show_default=True, help="which job")
@click.option("--jobs", type=click.IntRange(1, 2**31), default=1, show_default=True, help="of how many")
@click.option("--task", default="", help="only this task, and those it waits for")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="the dataset's")
@click.option("--out", type=click.Path(path_type=Path), help="for the permanent files [default: ./job-N]")
@click.option(
    "--dagman",
    type=click.Path(path_type=Path),
    help="write this directory for HTCondor's DAGMan; run nothing",
)
@click.option("--keep", is_flag=True, help="keep logs and files between tasks, in OUT/.iceprod")
@click.option("--log", "show_log", is_flag=True, help="print what each task printed")
@click.option("--gpus", type=click.IntRange(0, 64), default=0, help="GPUs that tasks may use")
@click.option(
    "--system", multiple=True, metavar="NAME=VALUE", help="what $system(NAME) is, as a site sets it"
)
@click.option(
    "--software", multiple=True, metavar="NAME/VERSION=TARBALL", help="what a cluster knows as that software"
)
@click.option(
    "--external",
    type=click.Path(path_type=Path),
    metavar="SITE.TOML",
    help="whose [external] says from where modules are fetched",
)
@output_options
@pass_session
def run_local(
    session: Session,
    file: Path,
    job: int,
    jobs: int,
    task: str,
    seed: int,
    out: Path | None,
    dagman: Path | None,
    keep: bool,
    show_log: bool,
    gpus: int,
    system: tuple[str, ...],
    software: tuple[str, ...],
    external: Path | None,
) -> None:
    """Run one job of the steering FILE here and now, as a pilot would, without a cluster.

    Tasks run one after the other in the order of their DAG.  Exit code 0 when all ended well, 1 when one failed,
    130 when it was interrupted.  With --dagman the job becomes a directory that `condor_submit_dag` runs, a node for
    each task, where worker nodes see that directory and this Python.
    """
    from iceprod_cli.dagman import write_bundle, write_dag
    from iceprod_cli.fetching import packed_whole
    from iceprod_p2p.client.submission import read_document
    from iceprod_p2p.steering.plan import all_shapes, task_shapes

    document = read_document(file)
    packed = packed_whole(document, file.resolve().parent, site_toml=external)
    tarballs = _tarballs(software)
    packed.files.update(dict(tarballs.values()))
    wish = {
        "job": job,
        "software": {label: digest for label, (digest, _) in tarballs.items()},
        "jobs": max(jobs, job + 1),
        "seed": seed,
        "task": task,
        "out": str((out or Path(f"job-{job}")).absolute()),
        "result": "",
        "keep": keep,
        "show_log": show_log,
        "gpus": gpus,
        "system": _system(system),
    }
    if dagman is not None:
        path = write_dag(
            dagman.absolute(), packed, wish, all_shapes(document), of_job=len(task_shapes(document))
        )
        say(f"{path}: {len(document.tasks)} nodes. Run it: condor_submit_dag {path}")
        return
    with tempfile.TemporaryDirectory(prefix="iceprod-local-") as scratch:
        bundle = Path(scratch)
        result = bundle / "result.json"
        write_bundle(bundle, packed, {**wish, "result": str(result)})
        code = _run(bundle)
        if not result.exists():
            raise click.exceptions.Exit(code or 1)
        answer = json.loads(result.read_bytes())
    show_object(session.style, answer, people=lambda _: _print(answer), name="job")
    if code:
        raise click.exceptions.Exit(code)


def _run(bundle: Path) -> int:
    """Run the job in a process of its own.  An interrupt reaches both; that process ends in order, and tells."""
    process = subprocess.Popen([sys.executable, "-m", RUNNER, "--bundle", str(bundle)])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _system(words: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise BadInput(f"--system {word!r} is not NAME=VALUE")
        values[name] = value
    return values


def _tarballs(words: tuple[str, ...]) -> dict[str, tuple[str, Path]]:
    """Return digest and path of each tarball by NAME/VERSION; BadInput for what is none."""
    from iceprod_p2p.modules.archive import inspect
    from iceprod_p2p.security.checksums import hash_file

    found = {}
    for word in words:
        label, _, name = word.partition("=")
        if label.count("/") != 1 or not name:
            raise BadInput(f"--software {word!r} is not NAME/VERSION=TARBALL")
        path = Path(name).absolute()
        inspect(path)
        found[label] = (hash_file(path).sha256, path)
    return found


def _print(answer: dict[str, Any]) -> None:
    for task in answer["tasks"]:
        used = task["usage"]
        cpu_s, wall_s = used.get("cpu_ms", 0) / 1_000, used.get("wall_ms", 0) / 1_000
        state = "complete" if task["ok"] else f"failed ({task['reason']})"
        peak = used.get("memory_peak_mib", 0)
        say(f"{safe(task['task'])}: {state}, {wall_s:.1f} s, {cpu_s:.1f} s of CPU, {peak} MiB")
        for name, value in task.get("statistics", {}).items():
            say(f"  {safe(name)} = {value:g}")
        for entry in task["files"]:
            if entry["kind"] != "log":
                where = f" -> {entry['path']}" if "path" in entry else ""
                say(f"  wrote {safe(entry['name'])} ({size(entry['size_bytes'])}){safe(where)}")
        if not task["ok"]:
            say("  " + safe(task["message"]).replace("\n", "\n  "))
