"""IceTray: runs icetray scripts and tray segments in the environment of a software build.

A script is started by the Python of that environment, behind its `env-shell.sh` if it has one.  A segment
(``package.module.function``) is put into a tray by a small driver, with parameters and files of the steering file;
what its services count comes back as statistics.  Nothing of IceTray is imported here.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.command import argument_words, run_command
from iceprod_p2p.modules.statistics import clip

DRIVER_FILE: Final = ".iceprod-tray.py"
REQUEST_FILE: Final = ".iceprod-tray.json"
DRIVER: Final = '''"""Made by IceProd P2P: puts one segment into a tray and runs it."""

import importlib
import json
import math
import os
import sys

sys.path += [os.getcwd()]
with open(sys.argv[1]) as file:
    request = json.load(file)
from icecube import dataio, icetray  # noqa: E402,F401

try:
    from icecube.icetray import I3Tray  # noqa: E402
except ImportError:
    from I3Tray import I3Tray  # noqa: E402
for library in request["libraries"]:
    importlib.import_module(library if "." in library else "icecube." + library)
module, _, name = request["segment"].rpartition(".")
segment = getattr(importlib.import_module(module), name)
tray = I3Tray()
if request["infiles"]:
    tray.Add("I3Reader", "reader", FilenameList=request["infiles"])
tray.Add(segment, name, **request["parameters"])
if request["outfile"]:
    streams = [getattr(icetray.I3Frame, stream) for stream in request["streams"]]
    tray.Add("I3Writer", "writer", filename=request["outfile"], streams=streams)
if request["frames"] > 0:
    tray.Execute(request["frames"])
else:
    tray.Execute()
if hasattr(tray, "Finish"):
    tray.Finish()
found = {}
context = getattr(tray, "context", None)
if context is not None and "I3SummaryService" in context:
    for key in context["I3SummaryService"].keys():
        found[str(key)] = context["I3SummaryService"][key]
for key, usage in dict(tray.Usage()).items() if hasattr(tray, "Usage") else ():
    found[str(key) + ".frames"] = usage.ncall
    found[str(key) + ".user_s"] = usage.usertime
numbers = {key: float(value) for key, value in found.items() if isinstance(value, (int, float))}
numbers = {key[:128]: value for key, value in numbers.items() if math.isfinite(value)}
with open(os.environ["ICEPROD_STATISTICS"], "w") as file:
    json.dump(dict(sorted(numbers.items())[:200]), file)
'''


class IceTray(IPModule):
    """Run an icetray script, or a tray segment, in the tray's software environment."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("script", "an icetray script; or set segment", "", "string")
        self.AddParameter("arguments", "of the script: text, words, or {option: value}", "")
        self.AddParameter("segment", "a tray segment or module: package.module.function", "", "string")
        self.AddParameter("parameters", "of the segment", {}, "json")
        self.AddParameter("libraries", "projects to import before it", [], "string_list")
        self.AddParameter("infiles", "files that the tray reads, in order", [], "string_list")
        self.AddParameter(
            "outfile", "file that the tray writes; empty: the segment's own affair", "", "string"
        )
        self.AddParameter("streams", "frames that are written", ["DAQ", "Physics"], "string_list")
        self.AddParameter("frames", "how many frames; 0: all", 0, "int")
        self.AddParameter(
            "env_shell", "program that sets the environment up; empty: $I3_BUILD's", "", "string"
        )
        self.AddParameter("python", "interpreter, as the environment calls it", "python3", "string")

    def Execute(self, stats: Statistics) -> int:
        """Run it to its end; its exit code is the module's.

        BadInput when neither or both of script and segment are given; NotFound for a missing file or program.
        """
        script, segment = self.GetParameter("script"), self.GetParameter("segment")
        if bool(script) is bool(segment):
            raise BadInput("IceTray runs a script or a segment", remedy="set one of the two")
        if script and not Path(script).is_file():
            raise NotFound(f"the script {script!r} does not exist")
        missing = [
            name for name in self.GetParameter("infiles") if "://" not in name and not Path(name).is_file()
        ]
        if missing:
            raise NotFound(f"these files are missing: {', '.join(missing)}")
        made: list[Path] = []
        try:
            if script:
                words = [script, *argument_words(self.GetParameter("arguments"))]
            else:
                made = self._driver(segment)
                words = [str(path) for path in made]
            argv = [*self._env_shell(), self.GetParameter("python"), *words]
            code, statistics = run_command(argv, work_dir=Path.cwd())
        finally:
            for path in made:
                path.unlink(missing_ok=True)
        stats.update(statistics)
        return code

    def _env_shell(self) -> list[str]:
        """Return the program that sets the environment up: the one named, or that of $I3_BUILD unless it is loaded."""
        named: str = self.GetParameter("env_shell")
        if named:
            words = argument_words(named)
            if shutil.which(words[0]) is None:
                raise NotFound(f"the program {clip(words[0])} that sets up the environment is not there")
            return words
        build = os.environ.get("I3_BUILD", "")
        shell = Path(build) / "env-shell.sh"
        loaded = os.environ.get("I3_SHELL") or os.environ.get("ROOTSYS_I3")
        return [str(shell)] if build and not loaded and shell.is_file() else []

    def _driver(self, segment: str) -> list[Path]:
        if not all(part.isidentifier() for part in segment.split(".")) or "." not in segment:
            raise BadInput(f"{clip(segment)} is no name of a segment", remedy="write package.module.function")
        request: dict[str, Any] = {
            name: self.GetParameter(name)
            for name in ("segment", "parameters", "libraries", "infiles", "outfile", "streams", "frames")
        }
        if not isinstance(request["parameters"], dict):
            raise BadInput("the segment's parameters are no object of names and values")
        paths = [Path(DRIVER_FILE), Path(REQUEST_FILE)]
        paths[0].write_text(DRIVER, encoding="utf-8")
        paths[1].write_text(json.dumps(request), encoding="utf-8")
        return paths
