"""A module in its child process: what it is given, what comes back, and that nothing it does is lost or lied about."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from iceprod_p2p.modules.protocol import ModuleRequest, Progress, Statistic
from tests.unit.modules.child_process import run_module

COUNT = """
from iceprod_p2p.modules import IPModule

class Count(IPModule):
    def __init__(self):
        super().__init__()
        self.AddParameter("Upto", "how far to count", 3, "int")
        self.AddParameter("bad", "statistic to report", None)

    def Execute(self, stats):
        if not super().Execute(stats):
            return 0
        print("this goes to the log")
        print('{"kind": "result", "ok": false}')
        self.context.progress(0.5, "half way")
        self.context.statistic("early", 1)
        stats["counted"] = self.GetParameter("UPTO")
        if self.GetParameter("bad") is not None:
            stats["bad_one"] = self.GetParameter("bad")
        open("written", "w").write("here")
        return 0

    def Finish(self, stats):
        stats["finished"] = 1
        return 0
"""


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return name


def test_a_class_in_a_file_runs_in_its_work_directory_and_reports(tmp_path):
    src = write(tmp_path, "count.py", COUNT)
    request = ModuleRequest(work_dir=str(tmp_path), class_name="Count", src=src, parameters={"uptO": "7"})
    run = run_module(request)
    assert run.result is not None and run.result.ok and run.result.code == 0
    assert run.result.statistics == {"early": 1.0, "counted": 7.0, "finished": 1.0}
    assert run.messages[:-1] == [Progress(0.5, "half way"), Statistic("early", 1.0)]
    assert "this goes to the log" in run.log and run.exit_code == 0
    assert (tmp_path / "written").read_text() == "here"
    assert run.result.real_s > 0 and run.result.user_s >= 0


def test_execute_false_skips_the_module_and_is_good(tmp_path):
    src = write(tmp_path, "count.py", COUNT)
    parameters = {"execute": "false"}
    run = run_module(
        ModuleRequest(work_dir=str(tmp_path), class_name="Count", src=src, parameters=parameters)
    )
    assert run.result is not None and run.result.ok and run.result.statistics == {}
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("bad", [math.nan, math.inf, "many"])
def test_a_statistic_that_is_no_finite_number_fails_the_module_by_name(tmp_path, bad):
    src = write(tmp_path, "count.py", COUNT)
    run = run_module(
        ModuleRequest(work_dir=str(tmp_path), class_name="Count", src=src, parameters={"bad": bad})
    )
    assert run.result is not None and not run.result.ok
    assert run.result.error is not None and "'bad_one'" in run.result.error.message


def test_an_undeclared_parameter_is_refused_with_the_nearest_name(tmp_path):
    src = write(tmp_path, "count.py", COUNT)
    run = run_module(
        ModuleRequest(work_dir=str(tmp_path), class_name="Count", src=src, parameters={"uptoo": 1})
    )
    assert run.result is not None and run.result.error is not None
    assert run.result.error.type == "BadInput"
    assert "'uptoo'" in run.result.error.message and "'Upto'" in run.result.error.message
    assert run.result.error.traceback_tail == ""  # the sentence says it all


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise ValueError('no light')", 1, "no light"),
        ("return 3", 3, "code 3"),
        ("import sys; sys.exit(4)", 4, "code 4"),
        ("import sys; sys.exit('bye')", 1, "bye"),
        ("return 'fine'", 1, "'fine'"),
        ("1 / 0", 1, "division by zero"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
    ],
)
def test_a_module_that_fails_says_why(tmp_path, body, code, words):
    text = f"from ipmodule import IPBaseClass\nclass M(IPBaseClass):\n    def Execute(self, stats):\n        {body}\n"
    run = run_module(ModuleRequest(work_dir=str(tmp_path), class_name="M", src=write(tmp_path, "m.py", text)))
    assert run.result is not None and not run.result.ok and run.result.code == code
    assert run.result.error is not None and words in run.result.error.message
    assert run.exit_code == 1


def test_a_raised_error_brings_the_end_of_its_traceback(tmp_path):
    text = "def broken(depth: int = 3):\n    return broken(depth - 1) if depth else 1 / 0\n"
    run = run_module(
        ModuleRequest(work_dir=str(tmp_path), class_name="broken", src=write(tmp_path, "m.py", text))
    )
    assert run.result is not None and run.result.error is not None
    assert run.result.error.type == "ZeroDivisionError"
    assert "1 / 0" in run.result.error.traceback_tail
    assert "1 / 0" in run.log


def test_a_crash_ends_without_a_result(tmp_path):
    text = "import os\ndef crash():\n    os.abort()\n"
    run = run_module(
        ModuleRequest(work_dir=str(tmp_path), class_name="crash", src=write(tmp_path, "m.py", text))
    )
    assert run.result is None and run.exit_code < 0


def test_what_the_module_starts_does_not_hold_the_result_pipe(tmp_path):
    text = "import os\ndef leave():\n    os.system('sleep 240 >/dev/null 2>&1 &')\n"
    run = run_module(
        ModuleRequest(work_dir=str(tmp_path), class_name="leave", src=write(tmp_path, "m.py", text))
    )
    assert run.result is not None and run.result.ok and run.result.real_s < 120


def test_a_class_file_named_by_its_checksum_loads_and_imports_its_neighbours(tmp_path):
    write(tmp_path, "helper.py", "VALUE = 5\n")
    src = write(tmp_path, "3f2a9c", "from helper import VALUE\ndef value():\n    return {'value': VALUE}\n")
    run = run_module(ModuleRequest(work_dir=str(tmp_path), class_name="value", src=src))
    assert run.result is not None and run.result.statistics == {"value": 5.0}


def test_a_typed_function_gets_its_values_and_context(tmp_path):
    text = """
from __future__ import annotations
from typing import Annotated
from iceprod_p2p.modules import ModuleContext, Unit, module_function

@module_function
def generate(
    events: Annotated[int, "events to generate"],
    *,
    energy_min: Annotated[float, Unit("GeV")] = 1e3,
    context: ModuleContext,
) -> dict[str, float]:
    '''Generate events.'''
    context.progress(1.0)
    return {"events": events, "energy": energy_min * events}
"""
    src = write(tmp_path, "g.py", text)
    parameters = {"events": "4", "energy_min": 2}
    run = run_module(
        ModuleRequest(work_dir=str(tmp_path), class_name="generate", src=src, parameters=parameters)
    )
    assert run.result is not None and run.result.statistics == {"events": 4.0, "energy": 8.0}
    run = run_module(ModuleRequest(work_dir=str(tmp_path), class_name="generate", src=src))
    assert run.result is not None and run.result.error is not None
    assert "needs a value for events" in run.result.error.message


def test_a_script_takes_its_arguments_and_reports_statistics_by_file(tmp_path):
    text = """
import json, os, sys
print(sys.argv[1:])
json.dump({"words": len(sys.argv) - 1}, open(os.environ["ICEPROD_STATISTICS"], "w"))
"""
    src = write(tmp_path, "s.py", text)
    args = {"events": 3, "name": "a b; rm -rf $HOME"}
    run = run_module(ModuleRequest(work_dir=str(tmp_path), src=src, args=args))
    assert run.result is not None and run.result.ok and run.result.statistics == {"words": 2.0}
    assert "['--events=3', '--name=a b; rm -rf $HOME']" in run.log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.py"]


def test_a_shell_script_runs_without_its_executable_bit_and_its_code_counts(tmp_path):
    src = write(tmp_path, "run", "#!/bin/sh\necho hello $1\nexit 3\n")
    run = run_module(ModuleRequest(work_dir=str(tmp_path), src=src, args="'big world'"))
    assert run.result is not None and not run.result.ok and run.result.code == 3
    assert "hello big world" in run.log


@pytest.mark.parametrize("statistics", ['{"x": NaN}', '{"x": "y"}', "[1]", "{", '{"x": 1e999}'])
def test_a_script_whose_statistics_are_none_fails(tmp_path, statistics):
    src = write(tmp_path, "run", f"#!/bin/sh\necho '{statistics}' > $ICEPROD_STATISTICS\n")
    run = run_module(ModuleRequest(work_dir=str(tmp_path), src=src))
    assert run.result is not None and not run.result.ok
    assert run.result.error is not None and "statistic" in run.result.error.message


def test_the_built_in_executable_runs_a_program(tmp_path):
    parameters = {"executable": "echo", "arguments": ["a", 1.5], "output": "out.txt"}
    run = run_module(ModuleRequest(work_dir=str(tmp_path), class_name="Executable", parameters=parameters))
    assert run.result is not None and run.result.ok
    assert (tmp_path / "out.txt").read_text() == "a 1.5\n"
    parameters = {"executable": "no-such-program"}
    run = run_module(ModuleRequest(work_dir=str(tmp_path), class_name="Executable", parameters=parameters))
    assert run.result is not None and run.result.error is not None
    assert "no program 'no-such-program'" in run.result.error.message


@pytest.mark.parametrize(
    ("class_name", "src", "words"),
    [
        ("Executible", "", "'Executable'"),
        ("no.such.package.Class", "", "no Python package 'no'"),
        ("Class", "missing.py", "'missing.py' does not exist"),
        ("", "missing.sh", "'missing.sh' does not exist"),
    ],
)
def test_a_module_that_is_not_there_is_named(tmp_path, class_name, src, words):
    run = run_module(ModuleRequest(work_dir=str(tmp_path), class_name=class_name, src=src))
    assert run.result is not None and run.result.error is not None
    assert words in run.result.error.message and run.result.error.type == "NotFound"


def test_a_task_with_one_core_gets_one_thread_unless_its_environment_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    text = "import os\ndef threads():\n    return {'threads': float(os.environ['OMP_NUM_THREADS'])}\n"
    request = ModuleRequest(
        work_dir=str(tmp_path), class_name="threads", src=write(tmp_path, "m.py", text), cpu_count=2
    )
    run = run_module(request)
    assert run.result is not None and run.result.statistics["threads"] == 2
    run = run_module(request, environ={"OMP_NUM_THREADS": "5"})
    assert run.result is not None and run.result.statistics["threads"] == 5


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0\0",
        struct.pack(">I", 2**31) + b"x" * 100,
        struct.pack(">I", 1) + b"\x01",
        struct.pack(">I", 1) + b"\x80",
    ],
)
def test_without_a_good_request_no_module_runs(frame):
    run = run_module(frame)
    assert run.result is None and run.exit_code == 64
    assert "no module was run" in run.log and "Traceback" not in run.log


def test_files_that_bear_a_librarys_name_do_not_take_its_place(tmp_path):
    write(tmp_path, "random.py", "raise RuntimeError('not the real one')\n")
    text = "import random, statistics\ndef real():\n    return {'mean': statistics.mean([1, random.choice([3])])}\n"
    src = write(tmp_path, "statistics.py", text)
    run = run_module(ModuleRequest(work_dir=str(tmp_path), class_name="real", src=src))
    assert run.result is not None and run.result.statistics == {"mean": 2.0}, run.log
