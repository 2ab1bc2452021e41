"""`iceprod-node` as a newcomer types it: a mistake can be mended by typing the line again, and says how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from iceprod_p2p.base.config import load
from iceprod_p2p.daemon import main
from iceprod_p2p.site.process import PID_FILE, _last_words, _own_mark, running_pid


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def founding(tmp_path: Path, **given: str | Path) -> list[str | Path]:
    options = {
        "config": tmp_path / "site.toml",
        "site": "madison",
        "cluster": "c",
        "data-dir": tmp_path / "d",
    }
    return ["init", *(word for name, value in (options | given).items() for word in (f"--{name}", value))]


def test_a_node_is_known_by_its_process_and_not_by_another_with_its_number(tmp_path: Path) -> None:
    typed(*founding(tmp_path))
    config = load(tmp_path / "site.toml")
    assert running_pid(config) is None
    file = config.node.data_dir / PID_FILE
    pid, ticks, boot = _own_mark().split(" ")
    for said, found in (
        (f"{pid} {ticks} {boot}", int(pid)),
        (f"{pid} {int(ticks) - 1} {boot}", None),
        (f"{pid} {ticks} another-boot", None),
        (f"{1 << 30} {ticks} {boot}", None),
        (pid, None),
        ("no number", None),
    ):
        file.write_text(said)
        assert running_pid(config) == found, said


def test_a_founding_that_failed_leaves_nothing_that_stands_against_the_next(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = typed(*founding(tmp_path, **{"data-dir": tmp_path / "file" / "d"}))
    assert failed.exit_code == 2 and "cannot make the directory" in failed.output
    assert not (tmp_path / "site.toml").exists()
    done = typed(*founding(tmp_path))
    assert done.exit_code == 0 and "Founded cluster c with site madison" in done.output, done.output


def test_a_configuration_that_was_there_stays_when_founding_fails(tmp_path: Path) -> None:
    typed(*founding(tmp_path))
    text = (tmp_path / "site.toml").read_text()
    again = typed(*founding(tmp_path))
    assert again.exit_code == 2 and "belongs to a node already" in again.output
    assert (tmp_path / "site.toml").read_text() == text


def test_the_same_directory_may_be_named_relative_to_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ("init", "--site", "madison", "--cluster", "c", "--data-dir", "d")
    assert typed(*line).exit_code == 0
    assert "belongs to a node already" in typed(*line).output


def test_without_a_configuration_the_options_that_are_missing_are_named_with_an_example(
    tmp_path: Path,
) -> None:
    said = typed("init", "--config", tmp_path / "site.toml", "--site", "madison")
    assert said.exit_code == 2
    assert "--cluster, --data-dir must be given" in said.output
    assert "such as --cluster icecube --data-dir /var/lib/iceprod" in said.output


def test_a_plugin_or_option_that_is_not_there_is_told_with_file_line_and_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    typed(*founding(tmp_path))
    text = path.read_text()
    path.write_text(text.replace('# plugin = "local"', 'plugin = "slrum"'))
    line = path.read_text().split("plugin =")[0].count("\n") + 1
    said = typed("config", "check", "--config", path)
    assert said.exit_code == 2
    assert (
        f"{path}: line {line}: queue.plugin: there is no grid plugin 'slrum'; did you mean slurm?"
        in said.output
    )
    path.write_text(text.replace("[queue.options]", "[queue.options]\nslotss = 2\n#"))
    said = typed("config", "check", "--config", path)
    assert "queue.options.slotss: there is no such setting; did you mean slots?" in said.output
    line = path.read_text().split("slotss")[0].count("\n") + 1
    assert f"\nline {line}: " in said.output


def test_a_check_ends_with_5_when_the_batch_system_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    typed(*founding(tmp_path))
    path.write_text(path.read_text().replace("[queue.options]", f'[queue.options]\nspool = "{path}/x"\n'))
    said = typed("config", "check", "--config", path)
    assert said.exit_code == 5 and "is sound" in said.output, said.output
    assert "batch system local cannot be used now" in said.output


def test_a_doctor_says_once_what_to_do_for_a_node_of_no_cluster(tmp_path: Path) -> None:
    typed(*founding(tmp_path))
    config = load(tmp_path / "site.toml")
    config.node.data_dir.rename(tmp_path / "gone")
    said = typed("doctor", "--config", tmp_path / "site.toml")
    assert said.exit_code == 1
    assert "store:" not in said.output
    document = json.loads(typed("doctor", "-o", "json", "--config", tmp_path / "site.toml").output)
    assert ("BAD", "certificates") in [(finding["verdict"], finding["what"]) for finding in document]
    assert (
        said.output.count("`iceprod-node init` or `join`; after its data were lost, `iceprod-node rejoin`")
        == 2
    )


def test_the_last_error_among_log_lines_is_told_with_its_faults_and_remedy() -> None:
    lines = [
        "2026 node starts",
        "iceprod-node: x.toml has one fault:",
        "line 3: node.id: wrong",
        "  mend it",
        "late",
    ]
    assert _last_words(lines) == ("x.toml has one fault:\nline 3: node.id: wrong", "mend it")
    assert _last_words(["iceprod-node: alone", "a log line"]) == ("alone", "")
    assert _last_words(["nothing"]) == ("", "")
