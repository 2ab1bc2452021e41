"""Tasks that come after a whole job or the whole dataset: order, edges, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from iceprod_p2p.model.steering import Configuration
from iceprod_p2p.steering.faults import SteeringError
from iceprod_p2p.steering.plan import closing_shapes, ordered, task_shapes
from iceprod_p2p.steering.read import read


def configuration(**tasks: dict[str, object]) -> Configuration:
    trays = [{"modules": [{"src": "x.sh"}]}]
    document = {"tasks": [{"name": name, "trays": trays, **more} for name, more in tasks.items()]}
    return read(yaml.safe_dump(document, sort_keys=False).encode(), name="test")


def test_tasks_after_a_job_wait_for_all_others_and_those_after_the_dataset_stand_apart() -> None:
    made = ordered(
        configuration(
            tell={"after": "dataset", "depends": ["merge"]},
            merge={"after": "dataset", "depends": ["a"]},
            check={"after": "job"},
            count={"after": "job", "depends": ["check"]},
            b={"depends": ["a"]},
            a={},
        )
    )
    assert [task.name for task in made.tasks] == ["a", "b", "check", "count", "merge", "tell"]
    assert [shape.parents for shape in task_shapes(made)] == [(), (0,), (0, 1), (0, 1, 2)]
    assert [(shape.name, shape.parents) for shape in closing_shapes(made)] == [("merge", ()), ("tell", (0,))]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ({"a": {"depends": ["b"]}, "b": {"after": "job"}}, "does not come after the whole job"),
        ({"a": {"depends": ["b"]}, "b": {"after": "dataset"}}, "does not come after the whole dataset"),
        ({"a": {"after": "dataset"}}, "at least one task for every job"),
        ({"a": {"after": "datset"}}, "did you mean dataset"),
    ],
)
def test_what_cannot_be_is_a_fault_with_its_reason(tasks: dict[str, dict[str, object]], said: str) -> None:
    with pytest.raises(SteeringError) as caught:
        configuration(**tasks)
    assert said in str(caught.value)
