"""Plans of tasks: made once where no job differs from another, anew where one may."""

from __future__ import annotations

import pytest
from iceprod_pilot.attempt import TaskFailure
from iceprod_pilot.plan import PLANS_KEPT, Documents

from iceprod_p2p.wire.pb import common_pb2, pilot_pb2

DOCUMENT = b"""
tasks:
- name: same
  trays: [{modules: [{class: Executable, parameters: {executable: /bin/true}}]}]
- name: own
  trays: [{modules: [{class: Executable, parameters: {executable: echo, arguments: "$(job) $environ(A)"}}]}]
- name: wrong
  data: [{type: permanent, movement: input, remote: a/x}, {type: permanent, movement: input, remote: b/x}]
  trays: [{modules: [{class: Executable, parameters: {executable: /bin/true}}]}]
"""


class Blobs:
    """Steering documents in the place of a cluster's; counts how often one is read."""

    def __init__(self, document: bytes = DOCUMENT) -> None:
        self.document = document
        self.reads = 0

    def read(self, content: object, *, size_max: int, wait: object) -> bytes:
        self.reads += 1
        return self.document


def order(index: int, job: int, *, document: str = "a", follows: int = 0, name: str = "") -> pilot_pb2.Order:
    return pilot_pb2.Order(
        ref=common_pb2.TaskRef(dataset=1, job=job, task=index, attempt=0),
        steering_sha256=document * 64,
        task_name=name or ("same", "own", "wrong")[index],
        jobs=9,
        seed=job,
        follows=follows,
    )


def give_up(seconds: float) -> bool:
    return True


def test_a_task_that_is_the_same_in_every_job_has_one_plan() -> None:
    blobs = Blobs()
    documents = Documents(blobs)  # type: ignore[arg-type]
    one, other = (documents.plan(order(0, job), {"A": str(job)}, wait=give_up) for job in (1, 2))
    assert one is other and one.steps[0].parameters == {"executable": "/bin/true"}
    # Tasks after a whole dataset are counted for themselves: it is the name that says which one it is.
    assert documents.plan(order(1, 3, follows=7, name="same"), {}, wait=give_up) is one
    assert blobs.reads == 1


def test_a_task_with_phrases_is_expanded_for_each_job() -> None:
    documents = Documents(Blobs())  # type: ignore[arg-type]
    plans = [documents.plan(order(1, job), {"A": f"a{job}"}, wait=give_up) for job in (1, 2, 1)]
    assert [plan.steps[0].parameters["arguments"] for plan in plans] == ["1 a1", "2 a2", "1 a1"]


def test_a_task_that_cannot_run_is_refused_each_time() -> None:
    documents = Documents(Blobs())  # type: ignore[arg-type]
    for job in (1, 2):
        with pytest.raises(TaskFailure, match="would both be"):
            documents.plan(order(2, job), {}, wait=give_up)


def test_many_tasks_push_the_plans_out_that_were_used_longest_ago() -> None:
    tasks = "\n".join(
        f"- {{name: t{n}, trays: [{{modules: [{{class: A{n}}}]}}]}}" for n in range(PLANS_KEPT + 1)
    )
    documents = Documents(Blobs(f"tasks:\n{tasks}".encode()))  # type: ignore[arg-type]
    plans = [documents.plan(order(n, 1, name=f"t{n}"), {}, wait=give_up) for n in range(PLANS_KEPT + 1)]
    assert [plan.steps[0].class_name for plan in plans] == [f"A{n}" for n in range(PLANS_KEPT + 1)]
    assert documents.plan(order(1, 2, name="t1"), {}, wait=give_up) is plans[1]
    again = documents.plan(order(0, 2, name="t0"), {}, wait=give_up)
    assert again == plans[0] and again is not plans[0]
