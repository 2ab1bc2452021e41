"""Targets for steering files and expressions.  Each is a property: it raises when something is broken.

Work is bounded by budgets, so a target measures CPU time too: far over the bar means that something is not paid for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from iceprod_p2p.steering import commands
from iceprod_p2p.steering.expand import expand_text
from iceprod_p2p.steering.expressions.context import Context
from iceprod_p2p.steering.read import SYNTAXES, check
from iceprod_p2p.steering.write import canonical, write

CPU_S_MAX: Final = 1.0  # The bar is 50 ms on a quiet core; a fuzzer runs where and beside what it may.
EXAMPLES: Final = Path(__file__).parents[1] / "examples"

_PIECES: Final = (
    *(
        "$",
        "(",
        ")",
        "[",
        "]",
        "\\",
        ",",
        "'",
        '"',
        "{",
        "}",
        ":",
        "%",
        "0",
        "1",
        "-1",
        "a",
        "b",
        " ",
        ".",
        "@",
    ),
    *(
        "$(a)",
        "$(b)",
        "$(l)",
        "$(o)",
        "$steering(",
        "$args(",
        "$system(",
        "$metadata(F)",
        "$environ(",
        "$eval(",
    ),
    *(
        "$sprintf('%06d',",
        "$choice(",
        "$sum(",
        "$min(",
        "$max(",
        "$len(",
        "[0]",
        "[-1]",
        "[x]",
        "2**9",
        "'a'*9",
    ),
    *(
        "math.pi",
        ".replace('a','b')",
        "[1,2]",
        "%(a)s",
        "%d",
        "%9d",
        "true",
        "1e9",
        "5@GeV",
        "\U0001f9ca",
        "é",
    ),
)
_CONTEXT: Final = Context(
    args={"a": 1, "b": "$(a)$(c)", "c": "x"},
    steering={"l": [1, "$(a)", [2.5]], "o": {"x": "$(b)", "a": 2}, "s": "$(s)", "t": "[1,2,3]"},
    metadata={"F": "%(a)s%(gone)06d", "a": "$(a)"},
)


def expressions() -> st.SearchStrategy[str]:
    """Return texts that look like expressions, well-formed or not, short and repeated."""
    texts = st.lists(st.sampled_from(_PIECES), max_size=24).map("".join)
    return st.one_of(texts, st.builds(lambda text, times: text * times, texts, st.integers(1, 4_000)))


def files() -> st.SearchStrategy[bytes]:
    """Return steering files of the examples with pieces cut out, repeated or replaced, and plain noise."""
    whole = [path.read_bytes() for path in sorted(EXAMPLES.glob("*/*")) if path.suffix[1:] in SYNTAXES]
    cuts = st.lists(
        st.tuples(st.integers(0, 2**20), st.integers(0, 64), st.integers(0, 3), _splices()), max_size=6
    )
    return st.one_of(st.builds(_mutated, st.sampled_from(whole), cuts), st.binary(max_size=400))


def _splices() -> st.SearchStrategy[bytes]:
    words = (
        "<",
        "/>",
        "<task>",
        "]]>",
        "&a;",
        "<!DOCTYPE a [",
        "null",
        "{",
        "[",
        "]",
        "}",
        ",",
        ":",
        "\n",
        "- ",
        "&a ",
    )
    more = (
        "*a",
        "!!x ",
        '"',
        "'",
        "#",
        "\x00",
        "\ud800",
        "\ufeff",
        "1e999",
        "-1",
        "NaN",
        "true",
        "  ",
        "\t",
        "%s",
    )
    return st.one_of(
        st.sampled_from((*words, *more)).map(lambda word: word.encode("utf-8", "surrogatepass")),
        st.sampled_from(_PIECES).map(str.encode),
        st.binary(max_size=8),
    )


def _mutated(whole: bytes, cuts: list[tuple[int, int, int, bytes]]) -> bytes:
    for at, length, times, splice in cuts:
        begin = at % (len(whole) + 1)
        end = begin + length
        whole = whole[:begin] + (whole[begin:end] * times if times > 1 else splice) + whole[end:]
    return whole


def expression_ends(text: str) -> None:
    """An expression gives JSON data, the same each time, at a bounded cost; nothing else happens."""
    with _bounded():
        value, resolved = expand_text(text, _CONTEXT)
    json.dumps(value, allow_nan=False).encode()
    assert isinstance(resolved, bool)
    if len(text) < 400:
        assert repr(expand_text(text, _CONTEXT)) == repr((value, resolved))


def file_ends(data: bytes) -> None:
    """A file is a tree that survives every syntax, or has faults that can be shown; nothing is raised."""
    with _bounded():
        checked = check(data, name="fuzz")
    assert len(checked.faults) <= 200
    assert all(str(fault).isprintable() and len(str(fault)) < 4_000 for fault in checked.faults)
    assert checked.faults or checked.configuration is not None
    if checked.faults or checked.configuration is None:
        return
    with _bounded():
        commands.check_answer(data, name="fuzz")
    for syntax in SYNTAXES:
        again = check(write(checked.configuration, syntax).encode(), name=f"fuzz.{syntax}")
        assert again.configuration is not None, again.faults
        assert canonical(again.configuration) == canonical(checked.configuration), syntax


def job_ends(data: bytes) -> None:
    """Every task of a valid file expands for a job, or says why it cannot run."""
    checked = check(data, name="fuzz")
    if checked.faults or checked.configuration is None:
        return
    tasks = [
        task for task in checked.configuration.tasks if all(_few(tray.iterations) for tray in task.trays)
    ]
    if len(tasks) < len(checked.configuration.tasks):
        return  # A hundred thousand iterations are allowed, and are no news.
    answer = commands.job_answer(checked.configuration, job=7, jobs=9, seed=3, task="", site={})
    json.dumps(answer, allow_nan=False)


def batch_ends(data: bytes) -> None:
    """Every line of a batch has one answer, whatever is in it."""
    answers = list(commands.answered(data.splitlines(keepends=True), _either))
    json.dumps(answers, allow_nan=False)
    assert len(answers) == sum(1 for line in data.splitlines() if line.strip())


def _either(request: commands.Request) -> dict[str, Any]:
    if "expr" in request:
        return commands.expression_answer(request["expr"], request.get("context") or {})
    return commands.check_answer(str(request.get("text", "")).encode("utf-8", "replace"), name="fuzz")


def _few(iterations: int | str) -> bool:
    return isinstance(iterations, int) and iterations <= 100


@contextmanager
def _bounded() -> Iterator[None]:
    begin = time.process_time()
    yield
    spent = time.process_time() - begin
    assert spent < CPU_S_MAX, f"took {spent:.2f} s of CPU time"


def batches() -> st.SearchStrategy[bytes]:
    """Return JSON lines with expressions and contexts, and lines that are none."""
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), expressions()
    )
    values = st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    )
    tables = st.dictionaries(st.sampled_from((*commands.TABLES, "other")), values, max_size=3)
    request = st.fixed_dictionaries(
        {}, optional={"expr": values, "context": tables, "text": values, "id": values}
    )
    line = st.one_of(request.map(lambda found: json.dumps(found).encode()), st.binary(max_size=40))
    return st.lists(line, max_size=4).map(b"\n".join)


TARGETS: Final[dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]]] = {
    "expressions": (expressions(), expression_ends),
    "files": (files(), file_ends),
    "jobs": (files(), job_ends),
    "batches": (batches(), batch_ends),
}
