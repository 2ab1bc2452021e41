"""A task that is said to be the same in every job is: whatever is known of a job, a site and an attempt."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.steering import Configuration
from iceprod_p2p.steering.constant import is_constant
from iceprod_p2p.steering.expand import expand_task, job_arguments
from tests.property.steering_trees import Trees

SEEDS = range(120)


def without_phrases(value: Any) -> Any:
    """Return a tree whose texts hold no `$`."""
    if type(value) is str:
        return value.replace("$", "S")
    if isinstance(value, dict):
        return {without_phrases(key): without_phrases(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_phrases, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: without_phrases(getattr(value, f.name)) for f in fields(value)})
    return value


def run(configuration: Configuration, index: int, number: int) -> str:
    """Expand a task where everything that could be known is another thing for each number."""
    known: dict[str, Any] = {
        name: f"{name}{number}" for name in ("x", "y", "n", "outfile", "cores", "version")
    }
    args = job_arguments(
        dataset=number, job=number, jobs=number + 9, task=f"t{number}", task_index=index, seed=number
    )
    try:
        task = expand_task(
            configuration, index, args={**args, **known}, system=known, options={}, environ=known, seed=number
        )
    except BadInput as bad:
        return f"refused: {bad}"
    return repr(replace(task, args={}))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_has_no_phrase_is_the_same_in_every_job(seed: int) -> None:
    configuration = without_phrases(Trees(seed).configuration())
    for index in range(len(configuration.tasks)):
        assert is_constant(configuration, index)
        assert run(configuration, index, 1) == run(configuration, index, 2)


def test_a_task_that_differs_from_job_to_job_is_never_called_constant() -> None:
    differing = 0
    for seed in SEEDS:
        configuration = Trees(seed).configuration()
        for index in range(len(configuration.tasks)):
            if run(configuration, index, 1) != run(configuration, index, 2):
                differing += 1
                assert not is_constant(configuration, index)
    assert differing
