"""How a pilot bundle starts: the ``__main__`` of the file or directory that ``iceprod-node pilot-bundle`` makes.

    python3 pilot.pyz --config pilot.json       (or the directory's name in place of the file's)

It imports the standard library alone and keeps to what Python 3.6 can read, so that a worker node whose Python does
not fit gets a sentence and no traceback.  The pilot works in a directory of its own, in the scratch that the batch
system gives; the file unpacks itself there, because libraries cannot be loaded out of an archive.  At the end the
directory is removed.
"""

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import zipfile

SCRATCH_VARIABLE = "ICEPROD_SCRATCH"  # The pilot's own directory: what is in it goes with the pilot.
# Where batch systems tell a grid job to write: HTCondor, sites' Slurm, ARC, Grid Engine and PBS and many others.
SCRATCH_VARIABLES = ("_CONDOR_SCRATCH_DIR", "SLURM_TMPDIR", "RUNTIME_LOCAL_SCRATCH_DIR", "TMPDIR")
EXIT_UNFIT = 2


def main() -> int:
    """Make a place, unpack, run the pilot, tidy up; return the pilot's exit code."""
    os.umask(0o077)
    here = os.path.dirname(os.path.abspath(__file__))
    unfit = misfit(read_facts(here))
    if unfit:
        sys.stderr.write(f"iceprod-pilot: {unfit}\n")
        return EXIT_UNFIT
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, leave)  # Until the pilot listens by itself: leave nothing behind.
    place = ""
    try:
        place = own_place()
        code_directory = here if os.path.isdir(here) else unpack(here, os.path.join(place, "bundle"))
        return run(code_directory)
    except (OSError, zipfile.BadZipFile) as fault:
        sys.stderr.write(f"iceprod-pilot: cannot unpack {here}: {fault}\n")
        return EXIT_UNFIT
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)


def leave(number: int, _frame: object) -> None:
    """End, by way of what tidies up."""
    sys.exit(128 + number)


def run(code_directory: str) -> int:
    """Run the pilot from a directory that holds it and all that it needs."""
    sys.path[0] = code_directory
    from iceprod_pilot.main import main as pilot_main

    return int(pilot_main())


def read_facts(here: str) -> dict:  # type: ignore[type-arg]
    """Return what the bundle says of itself: ``bundle.json``."""
    if os.path.isdir(here):
        with open(os.path.join(here, "bundle.json"), "rb") as file:
            return dict(json.loads(file.read().decode()))
    with zipfile.ZipFile(here) as archive:
        return dict(json.loads(archive.read("bundle.json").decode()))


def misfit(facts: dict) -> str:  # type: ignore[type-arg]
    """Return why this Python cannot run the bundle, empty when it can."""
    present = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if present != facts["python"]:
        wanted = facts["python"]
        return (
            f"this bundle is for Python {wanted}, but {sys.executable} is Python {present}; set worker_python"
        )
    machine = platform.machine()
    if machine != facts["machine"]:
        return f"this bundle is for {facts['machine']} machines, not for {machine}"
    return ""


def own_place() -> str:
    """Return a directory for this pilot alone, in the batch system's scratch, and tell the pilot of it."""
    given = os.environ.get(SCRATCH_VARIABLE, "")
    if not given:
        given = tempfile.mkdtemp(prefix="iceprod-", dir=scratch_of(os.environ) or tempfile.gettempdir())
        os.environ[SCRATCH_VARIABLE] = given
    os.makedirs(given, mode=0o700, exist_ok=True)
    return given


def scratch_of(environ: "os._Environ[str] | dict[str, str]") -> str:
    """Return the first directory that the batch system names and that can be written to, empty without one."""
    for name in SCRATCH_VARIABLES:
        path = environ.get(name, "")
        if path.startswith("/") and os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return path
    return ""


def unpack(archive: str, target: str) -> str:
    """Unpack the bundle into `target`, which is the pilot's alone."""
    shutil.rmtree(target, ignore_errors=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(target)
    return target


if __name__ == "__main__":
    raise SystemExit(main())
