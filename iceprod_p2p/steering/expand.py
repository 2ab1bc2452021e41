"""Expand one task of one job: every expression of the tree becomes a value, every parameter takes its type.

This runs on the worker node, from the document as submitted.  Equal inputs give equal results on every machine and
in every attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.steering import (
    Configuration,
    Value,
)
from iceprod_p2p.steering.expanded import ExpandedTask
from iceprod_p2p.steering.expressions.budget import Budget
from iceprod_p2p.steering.expressions.context import Context
from iceprod_p2p.steering.expressions.errors import Exhausted
from iceprod_p2p.steering.expressions.evaluate import Problem, expand
from iceprod_p2p.steering.limits import CHECK_WORK_MAX
from iceprod_p2p.steering.metadata import lookup_table
from iceprod_p2p.steering.seeds import job_seed, subdirectory
from iceprod_p2p.steering.task_expander import Level, TaskExpander, values_of

_SITES_OWN: Final = ("$system(", "$environ(")


def expand_text(text: str, context: Context) -> tuple[Value, bool]:
    """Return the typed value of a text and whether every phrase in it was resolved.  Never raises."""
    expansion = expand(text, context)
    return expansion.value, expansion.resolved


def job_arguments(
    *, dataset: int | str, job: int, jobs: int, task: str, task_index: int, seed: int
) -> dict[str, Value]:
    """Return what `$args(...)` knows of a job; `seed` is the dataset's, and `seed` in the result the job's."""
    return {
        "dataset": dataset,
        "job": job,
        "procnum": job,
        "jobs": jobs,
        "nproc": jobs,
        "jobs_submitted": jobs,
        "task": task,
        "task_index": task_index,
        "tray": 0,
        "iter": 0,
        "seed": job_seed(seed, job),
        "subdirectory": subdirectory(job),
    }


def expand_task(
    configuration: Configuration,
    task_index: int,
    *,
    args: Mapping[str, Value],
    system: Mapping[str, Value],
    options: Mapping[str, Value],
    environ: Mapping[str, str],
    seed: int,
) -> ExpandedTask:
    """Return one task with everything known.

    `args` come from `job_arguments`; `system` are the site's parameters and `options` those given at submission, both
    before those of the document; `seed` is the dataset's.  Phrases that cannot be resolved stay as they stand and
    are listed in the result.  Raises BadInput for what cannot run: an amount or a number of iterations that is none,
    a local file name outside the job's directory, a value that does not fit its type.
    """
    if not 0 <= task_index < len(configuration.tasks):
        raise BadInput(f"task {task_index} is not one of the {len(configuration.tasks)} tasks of the dataset")
    context = base_context(
        configuration, args=args, system=system, options=options, environ=environ, seed=seed
    )
    return TaskExpander(configuration, configuration.tasks[task_index], task_index, context).task_expanded()


def unresolved(
    configuration: Configuration,
    *,
    options: Mapping[str, Value] | None = None,
    args: Mapping[str, Value] | None = None,
) -> tuple[Problem, ...]:
    """Return every phrase that would stay as it stands in the first job, with its place: submission warns of them.

    What only a site knows (`$system`, `$environ`) is left out.  Cycles, bad amounts and values that do not fit their
    type are among the problems too; nothing is raised.  A parameter of the steering may refer to what some task, tray
    or module defines.  The work is bounded by CHECK_WORK_MAX: a last problem says so when there was more to look at.
    """
    found: dict[Problem, None] = {}
    budget = Budget(CHECK_WORK_MAX)
    context = base_context(configuration, args={}, system={}, options=options or {}, environ={}, seed=0)
    try:
        for index, task in enumerate(configuration.tasks):
            known = job_arguments(dataset=0, job=0, jobs=1, task=task.name, task_index=index, seed=0)
            here = replace(context, args={**known, **(args or {})})
            if index == 0:
                of_steering = TaskExpander(configuration, task, index, here, probing=True, document=budget)
                found.update(dict.fromkeys(_of_steering(of_steering)))
            expander = TaskExpander(configuration, task, index, here, probing=True, document=budget)
            found.update(dict.fromkeys(_of_task(expander)))
    except Exhausted:
        found[Problem("", 1, "", "the file is too large to look at every phrase of it")] = None
    # $(input) and $(output) repeat names of files whose own places are listed already.
    shown = (problem for problem in found if not problem.place.startswith("args."))
    return tuple(problem for problem in shown if not problem.phrase.startswith(_SITES_OWN))


def _of_task(expander: TaskExpander) -> tuple[Problem, ...]:
    """Return the problems of one task.  Raises Exhausted when the budget of the file is spent."""
    try:
        expander.task_expanded()
    except Exhausted:
        raise
    except BadInput as bad:  # Requirements, which stop a submission, name their place themselves.
        expander.problems[Problem(f"tasks[{expander.index}]", 1, "", bad.message)] = None
    if expander.document.left < 0:
        raise Exhausted("takes too many steps")
    return tuple(expander.problems)


def _of_steering(expander: TaskExpander) -> list[Problem]:
    """Return the problems of the steering's parameters, but not of names that only tasks, trays or modules have."""
    configuration = expander.configuration
    expander.enter(Level("steering", expander.context))
    expander.parameters(configuration.steering.parameters, "steering")
    inner: set[str] = set()
    for task in configuration.tasks:
        inner.update(values_of(task.parameters))
        for tray in task.trays:
            inner.update(values_of(tray.parameters))
            for module in tray.modules:
                inner.update(values_of(module.parameters))
    defined = {f"$({name})" for name in inner}
    return [problem for problem in expander.problems if problem.phrase not in defined]


def base_context(
    configuration: Configuration,
    *,
    args: Mapping[str, Value],
    system: Mapping[str, Value],
    options: Mapping[str, Value],
    environ: Mapping[str, str],
    seed: int,
) -> Context:
    """Return the context of a dataset's texts outside tasks."""
    return Context(
        args=dict(args),
        options={**values_of(configuration.options), **options},
        steering=values_of(configuration.steering.parameters),
        system={**values_of(configuration.steering.system), **system},
        metadata=dict(lookup_table(configuration.metadata)),
        environ=dict(environ),
        seed=seed,
    )
