"""One job as a directory for DAGMan: its nodes, edges and amounts, and what a node runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from iceprod_cli.dagman import dag, write_dag

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.client.submission import pack, read_document
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.steering.plan import all_shapes, task_shapes

CHAIN = """
version: 3.2
tasks:
  - name: make
    data: [{type: job_temp, movement: output, remote: seed, local: seed}]
    trays: [{modules: [{name: make, src: make.sh}]}]
  - name: use
    depends: [make]
    data:
      - {type: job_temp, movement: input, remote: seed, local: seed}
      - {type: permanent, movement: output, remote: found, local: found}
    trays: [{modules: [{name: use, src: use.sh}]}]
"""


def test_the_dag_has_every_task_with_its_amounts_and_every_edge() -> None:
    need = Requirements(cpus=2, gpus=1, memory_mib=1_000, disk_mib=500)
    shapes = (TaskShape("a"), TaskShape("b", (0,), need), TaskShape("c", (0, 1)), TaskShape("last"))
    text = dag(shapes, of_job=3)
    assert 'VARS t1 index="1" cpus="2" gpus="1" memory="1256" disk="500"' in text
    assert [line for line in text.splitlines() if line.startswith("PARENT")] == [
        "PARENT t0 CHILD t1",
        "PARENT t0 t1 CHILD t2",
        "PARENT t0 t1 t2 CHILD t3",
    ]


def test_nodes_run_one_after_the_other_make_what_the_job_makes(tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_text(CHAIN)
    (tmp_path / "make.sh").write_text("#!/bin/sh\necho 42 >seed\n")
    (tmp_path / "use.sh").write_text("#!/bin/sh\nsed s/4/5/ seed >found\n")
    document = read_document(tmp_path / "chain.yaml")
    wish = {"job": 0, "jobs": 1, "out": str(tmp_path / "out"), "result": ""}
    packed, shapes = pack(document, tmp_path), all_shapes(document)
    write_dag(tmp_path / "dag", packed, wish, shapes, of_job=len(task_shapes(document)))
    for index in range(2):
        line = [sys.executable, "-m", "iceprod_pilot.local", "--bundle", str(tmp_path / "dag" / "bundle")]
        done = subprocess.run([*line, "--only", str(index)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answer = json.loads((tmp_path / "dag" / "bundle" / f"result-{index}.json").read_text())
        assert [task["task"] for task in answer["tasks"]] == [["make", "use"][index]]
    assert (tmp_path / "out" / "found").read_text() == "52\n"
    with pytest.raises(BadInput, match="not there yet"):
        write_dag(tmp_path / "dag", packed, wish, shapes, of_job=2)
