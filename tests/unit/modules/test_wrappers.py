"""Programs with option parsers, and icetray scripts and segments, as modules."""

from __future__ import annotations

import argparse
import json
import optparse
import sys
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.modules.options import module_of, option_words
from iceprod_p2p.modules.protocol import ModuleRequest
from iceprod_p2p.modules.registry import inspect_module
from tests.unit.modules.child_process import run_module

# A stand-in with the interface that IceTray's Python has: a tray that calls its modules in order.
ICECUBE = {
    "__init__.py": "",
    "dataio.py": "",
    "simclasses.py": "",
    "icetray.py": """
class I3Frame:
    DAQ, Physics = "Q", "P"

class Usage:
    def __init__(self, ncall):
        self.ncall, self.usertime = ncall, 0.5

class I3Tray:
    def __init__(self):
        self.steps, self.context = [], {"I3SummaryService": {"triggered": 3, "nan": float("nan"), "word": "x"}}
    def Add(self, what, name="", **parameters):
        if callable(what):
            what(self, name, **parameters)
        else:
            self.steps.append((what, parameters))
    def Execute(self, frames=-1):
        import json
        with open("ran.json", "w") as file:
            json.dump([self.steps, frames], file)
    def Finish(self):
        pass
    def Usage(self):
        return {"generate": Usage(7)}
""",
}


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A software build with an env-shell.sh of its own."""
    build = tmp_path / "build"
    (build / "icecube").mkdir(parents=True)
    for name, text in ICECUBE.items():
        (build / "icecube" / name).write_text(text)
    shell = build / "env-shell.sh"
    shell.write_text(f'#!/bin/sh\nPYTHONPATH={build} I3_SHELL=yes exec "$@"\n')
    shell.chmod(0o755)
    return build


def tray(tmp_path: Path, build: Path, **parameters: Any) -> Any:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    request = ModuleRequest(
        work_dir=str(work), class_name="IceTray", parameters={"python": sys.executable, **parameters}
    )
    return run_module(request, environ={"I3_BUILD": str(build)})


def test_a_script_runs_in_the_environment_of_the_build(tmp_path: Path, build: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "sim.py").write_text(
        "import json, os, sys\nfrom icecube import icetray\nassert os.environ['I3_SHELL'] == 'yes'\n"
        "json.dump({'seed': int(sys.argv[1].split('=')[1])}, open(os.environ['ICEPROD_STATISTICS'], 'w'))\n"
    )
    ran = tray(tmp_path, build, script="sim.py", arguments={"seed": 42})
    assert ran.result is not None and ran.result.ok, ran.log
    assert ran.result.statistics == {"seed": 42.0}


def test_a_segment_is_put_into_a_tray_with_files_and_what_it_counts_comes_back(
    tmp_path: Path, build: Path
) -> None:
    (build / "segments.py").write_text(
        "def generate(tray, name, events=0):\n    tray.Add('Generator', N=events)\n"
    )
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "gcd.i3").write_text("")
    ran = tray(
        tmp_path,
        build,
        segment="segments.generate",
        parameters={"events": 5},
        libraries=["simclasses"],
        infiles=["gcd.i3"],
        outfile="out.i3",
        frames=10,
    )
    assert ran.result is not None and ran.result.ok, ran.log
    steps, frames = json.loads((tmp_path / "work" / "ran.json").read_text())
    assert [what for what, _ in steps] == ["I3Reader", "Generator", "I3Writer"]
    assert (steps[1][1], steps[2][1]["streams"], frames) == ({"N": 5}, ["Q", "P"], 10)
    assert ran.result.statistics == {"triggered": 3.0, "generate.frames": 7.0, "generate.user_s": 0.5}
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["gcd.i3", "ran.json"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "a script or a segment"),
        ({"script": "gone.py"}, "'gone.py' does not exist"),
        ({"segment": "os;system"}, "no name of a segment"),
        ({"segment": "a.b", "infiles": ["gone.i3"]}, "gone.i3"),
        ({"segment": "a.b", "env_shell": "no-such-shell"}, "sets up the environment is not there"),
    ],
)
def test_what_cannot_run_is_said_before_it_runs(
    tmp_path: Path, build: Path, parameters: dict[str, Any], said: str
) -> None:
    ran = tray(tmp_path, build, **parameters)
    assert ran.result is not None and ran.result.error is not None and said in ran.result.error.message


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Count events.")
    parser.add_argument("--infile", default="events.txt", help="file to  read")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--bins", type=int, nargs="*", default=[1])
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--tag", action="append")
    return parser


def options() -> optparse.OptionParser:
    parser = optparse.OptionParser(description="Count events.")
    parser.add_option("--infile", default="events.txt", help="file to  read")
    parser.add_option("--scale", type="float", default=1.0)
    parser.add_option("--verbose", action="store_true", default=False)
    parser.add_option("--tag", action="append")
    return parser


@pytest.mark.parametrize("parser", [arguments(), options()], ids=["argparse", "optparse"])
def test_a_parsers_options_become_parameters_with_types_and_defaults(parser: Any) -> None:
    seen: list[Any] = []

    def count(options: Any) -> dict[str, float]:
        seen.append(options)
        return {"events": 3 * options.scale}

    module = module_of(parser, count)()
    assert type(module).__name__ == "count" and type(module).__doc__ == "Count events."
    known = {spec.name: spec for spec in module.parameter_specs()}
    assert known["infile"].description == "file to read" and known["scale"].default == 1.0
    module.SetParameter("scale", "2.5")
    module.SetParameter("Verbose", "true")
    module.SetParameter("tag", ["a", "b"])
    stats: dict[str, Any] = {}
    assert module.Execute(stats) == 0 and stats == {"events": 7.5}
    assert (seen[0].infile, seen[0].verbose, seen[0].tag) == ("events.txt", True, ["a", "b"])
    with pytest.raises(BadInput):
        module.SetParameter("scale", "much")
    with pytest.raises(BadInput, match="no parameter"):
        module.SetParameter("scales", 1)


def test_a_wrapped_parser_in_a_file_is_a_module_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(
        "import argparse\nfrom iceprod_p2p.modules.options import module_of\n"
        "parser = argparse.ArgumentParser(description='Count.')\n"
        "parser.add_argument('--events', type=int, default=1)\n"
        "def work(options):\n    return {'events': options.events}\n"
        "Count = module_of(parser, work)\n"
    )
    spec = inspect_module("Count", str(tmp_path / "count.py"))
    assert [parameter.name for parameter in spec.parameters] == ["execute", "events"]
    request = ModuleRequest(
        work_dir=str(tmp_path), class_name="Count", src="count.py", parameters={"events": "12"}
    )
    ran = run_module(request)
    assert ran.result is not None and ran.result.statistics == {"events": 12.0}, ran.log


def test_a_script_with_options_gets_one_for_each_entry(tmp_path: Path) -> None:
    (tmp_path / "show.sh").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words\n')
    given = {"events": 5, "verbose": True, "quiet": False, "tag": ["a b", "c"], "n": 3}
    parameters = {"script": "show.sh", "options": given, "arguments": "in.i3"}
    ran = run_module(ModuleRequest(work_dir=str(tmp_path), class_name="OptionScript", parameters=parameters))
    assert ran.result is not None and ran.result.ok, ran.log
    words = (tmp_path / "words").read_text().splitlines()
    assert words == ["--events=5", "--verbose", "--tag=a b", "--tag=c", "-n", "3", "in.i3"]
    for name in ("", "-x", "a=b", "a b"):
        with pytest.raises(BadInput, match="cannot be the name"):
            option_words({name: 1})


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    parameters = {"script": "gone.sh"}
    ran = run_module(ModuleRequest(work_dir=str(tmp_path), class_name="OptionScript", parameters=parameters))
    assert ran.result is not None and ran.result.error is not None
    assert ran.result.error.type == NotFound.__name__
