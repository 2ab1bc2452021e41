"""What stands in batch scripts and submit files is data: every plugin's script gives the executable its words and
environment as they are, whatever shells, batch systems and submit languages would make of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.grids import arc_text, htcondor_text, pbs_text, sge_text, slurm_text
from iceprod_p2p.grids.declarative_text import submit_line
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.request import GridRequest, Tag, is_host
from iceprod_p2p.site.plans.hosts import excluded
from tests.security.cost import bounded

WORDS = (
    "plain",
    "",
    "two words",
    "-rf",
    "--",
    "$HOME",
    "${IFS}",
    "$(touch hit)",
    "`touch hit`",
    "'; touch hit; '",
    '"; touch hit; "',
    "a' 'b",
    "\\",
    "\\\\",
    "\\'",
    "!!",
    "*",
    "~",
    "{a,b}",
    "#",
    "# comment",
    "%j.%u",
    "&& touch hit",
    "| touch hit",
    "> hit",
    "a\nb",
    "\n",
    "a\n",
    "\n#$ -q stolen.q\n#PBS -q stolen\n#SBATCH --uid=0\n",
    "x\nEOF\ntouch hit\n",
    "$LF",
    "'$LF'",
    "\ttab\r",
    "\x1b[2J",
    "é雪",
    "$$([a])",
    "$ENV(HOME)",
    "queue 100",
    "a=b",
    "x" * 10_000,
)
DIRECTIVE = re.compile(r"^\s*#(?:\$|PBS|SBATCH)", re.MULTILINE)
SCRIPTS = {
    "htcondor": htcondor_text.script,
    "slurm": slurm_text.script,
    "sge": sge_text.script,
    "pbs": pbs_text.script,
    "arc": arc_text.script,
    "declarative and local": shell_script,
}


def request(directory: Path, **changes: object) -> GridRequest:
    program = directory / "tell.py"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "json.dump([sys.argv[1:], dict(os.environ)], open('told.json', 'w'))\n"
    )
    program.chmod(0o755)
    fields: dict[str, object] = {
        "executable": str(program),
        "work_directory": str(directory),
        "arguments": WORDS,
        "environment": {f"V{number}": word for number, word in enumerate(WORDS)},
        **changes,
    }
    return GridRequest(Tag("madison", "p1"), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("plugin", SCRIPTS)
def test_words_and_environment_arrive_as_they_are(plugin: str, tmp_path: Path) -> None:
    script = SCRIPTS[plugin](request(tmp_path))
    assert not DIRECTIVE.search(script), "no word of a request is a directive"
    (tmp_path / "grid.sh").write_text(script)
    subprocess.run(
        ["/bin/sh", "grid.sh"], cwd=tmp_path, check=True, timeout=60, env={"PATH": "/usr/bin:/bin"}
    )
    words, environment = json.loads((tmp_path / "told.json").read_text())
    assert tuple(words) == WORDS
    assert [environment[f"V{number}"] for number in range(len(WORDS))] == list(WORDS)
    assert not (tmp_path / "hit").exists()


def test_directives_are_the_sites_alone(tmp_path: Path) -> None:
    asked = request(tmp_path, extra_lines=("-l site=1",))
    for plugin in ("slurm", "sge", "pbs"):
        assert len(DIRECTIVE.findall(SCRIPTS[plugin](asked))) == 1, plugin


HOSTS = (
    'a" || TRUE || "',
    "a,b",
    "n[1-100000]",
    "a|b)",
    "$(touch hit)",
    "`x`",
    "*",
    "-x",
    "a b",
    "a\nqueue 1000",
    "$ENV(HOME)",
    "a;b",
    "é",
    "",
    "x" * 300,
    "../a",
    "a/b",
    "!a",
)


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_no_host_can_be_reaches_no_batch_system(host: str, tmp_path: Path) -> None:
    assert not is_host(host)
    assert excluded([host, "n1"], [host, "n2.example.org"]) == ("n1", "n2.example.org")
    with pytest.raises(BadInput, match="no name that a host could have"):
        request(tmp_path, exclude_hosts=(host,))


@pytest.mark.parametrize(
    "change",
    [
        {"queue": "a\nqueue 1000"},
        {"queue": "a\x00"},
        {"work_directory": "/tmp/a\n+Evil = 1"},
        {"executable": "/bin/sh\nrm"},
        {"extra_lines": ("a\nb",)},
        {"files_in": ("/a\nb",)},
        {"arguments": ("a\0b",)},
        {"arguments": ("x" * 40_000,)},
        {"environment": {"A": "\0"}},
        {"environment": {"A=B": "1"}},
        {"environment": {"A\n": "1"}},
        {"environment": {"$(touch hit)": "1"}},
        {"environment": {"": "1"}},
        {"priority": 10**30},
        {"cores": 0},
        {"walltime_s": -1},
    ],
    ids=str,
)
def test_what_would_break_a_submit_file_is_one_refusal(change: dict[str, object], tmp_path: Path) -> None:
    with bounded(cpu_s=0.5, memory_mib=16), pytest.raises(BadInput) as refusal:
        request(tmp_path, **change)
    assert len(str(refusal.value)) < 1_000


@pytest.mark.parametrize(
    ("site", "grid_job"),
    [
        ("a b", "x"),
        ("a", "x\n"),
        ("../a", "x"),
        ("a", "$(x)"),
        ("", "x"),
        ("a" * 64, "x"),
        ("a", "é"),
        ("a.b", "c"),
    ],
)
def test_tags_are_names_and_nothing_else(site: str, grid_job: str) -> None:
    with pytest.raises(BadInput, match="cannot be tagged"):
        Tag(site, grid_job)
    assert Tag.parse(f"iceprod.{site}.{grid_job}") is None


def test_a_strangers_job_is_never_taken_for_ours() -> None:
    for name in (
        "iceprod.a.b.c",
        "iceprod.a.b\n",
        " iceprod.a.b",
        "ICEPROD.a.b",
        "iceprod..b",
        "iceprod.a.",
        "x" * 9_999,
    ):
        assert Tag.parse(name) is None, name


def test_submit_descriptions_hold_one_queue_and_quote_what_they_are_given(tmp_path: Path) -> None:
    asked = request(tmp_path, exclude_hosts=("n1",), queue='a"b')
    text = htcondor_text.description(asked, htcondor_text.HtcondorOptions())
    assert text.count("queue") == 1 and text.endswith("queue 1\n")
    assert not any(word in text for word in ("touch hit", "$ENV", "$$("))
    xrsl = arc_text.description(asked)
    assert '(queue="a""b")' in xrsl and "touch hit" not in xrsl


def test_a_value_in_a_command_line_is_one_word(tmp_path: Path) -> None:
    asked = request(tmp_path, queue="--evil x {script} $(touch hit)")
    assert submit_line(["sub", "-q {queue}", "{script}"], asked) == (
        "sub",
        "-q",
        "--evil x {script} $(touch hit)",
        f"{tmp_path}/grid.sh",
    )
    for line in (
        slurm_text.arguments(asked, slurm_text.SlurmOptions()),
        sge_text.arguments(asked, sge_text.SgeOptions()),
        pbs_text.arguments(asked, pbs_text.OPENPBS),
    ):
        assert sum("touch hit" in word for word in line) == 1
