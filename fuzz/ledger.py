"""Entries of the ledger as a lying member could write them: every command with the extremes that its fields allow.

`apply` must answer each with an outcome.  An exception would end the Raft part of every voter at the same entry, and
again after every restart.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as kinds

from iceprod_p2p.ledger.commands import Command, SetPerson
from iceprod_p2p.ledger.invariants import check
from iceprod_p2p.model.person import Role
from tests.ledger_in_hand import LedgerInHand

WORDS: Final = (
    "",
    "0",
    "1",
    "a",
    "madison",
    "zeuthen",
    "n0",
    "n1",
    "n2",
    "ada",
    "key0",
    "std",
    "generate",
    "p1",
    "../x",
    "\x1b[2J",
    "\0",
    "é雪",
    "x" * 63,
    "a" * 64,
)
LONG: Final = ("x" * 255, "x" * 5_000, "é" * 255, "\u202e" * 40)
NUMBERS: Final = (
    0,
    1,
    2,
    7,
    63,
    2**16,
    2**31 - 1,
    2**32 - 3,
    2**32 - 1,
    2**53,
    2**62,
    2**63 - 1,
    -1,
    -(2**63),
)
FRACTIONS: Final = (0.0, -0.0, 1.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
ACTORS: Final = (
    "node:n0",
    "node:n1",
    "node:n0",
    "person:ada",
    "person:ada",
    "person:nobody",
    "pilot:madison/p",
    "",
    "x",
    "node:",
    "é" * 60,
)
COMMANDS: Final = tuple(get_args(Command))


def drawn(kind: kinds.Type, draw: random.Random, depth: int = 0) -> Any:
    """Return a value that a field of this type could hold, as plain data."""
    match kind:
        case kinds.UnionType(types=types):
            return drawn(draw.choice(types), draw, depth)
        case kinds.NoneType():
            return None
        case kinds.BoolType():
            return draw.random() < 0.5
        case kinds.IntType(ge=ge, le=le):
            fitting = [n for n in NUMBERS if (ge is None or n >= ge) and (le is None or n <= le)]
            return draw.choice(fitting or NUMBERS)
        case kinds.FloatType():
            return draw.choice(FRACTIONS)
        case kinds.StrType(max_length=most):
            word = draw.choice(WORDS if draw.random() < 0.9 else LONG)
            return word if most is None else word[:most]
        case kinds.BytesType(min_length=least, max_length=most):
            length = draw.choice([n for n in (least or 0, 1, 16, 20, 32, most or 64) if n >= (least or 0)])
            return bytes([draw.choice((0, 1, 255))]) * min(length, most or length, 40_000)
        case kinds.EnumType(cls=cls):
            return draw.choice([member.value for member in cls])
        case kinds.LiteralType(values=values):
            return draw.choice(values)
        case kinds.StructType(fields=fields, tag=tag, array_like=True):
            values = [drawn(field.type, draw, depth + 1) for field in fields]
            return values if tag is None else [tag, *values]
        case kinds.StructType(fields=fields) | kinds.DataclassType(fields=fields):
            return {field.encode_name: drawn(field.type, draw, depth + 1) for field in fields}
        case kinds.NamedTupleType(fields=fields):
            return [drawn(field.type, draw, depth + 1) for field in fields]
        case kinds.TupleType(item_types=types):
            return [drawn(one, draw, depth + 1) for one in types]
        case kinds.DictType(key_type=key, value_type=value):
            return {drawn(key, draw, depth): drawn(value, draw, depth) for _ in range(draw.choice((0, 1, 3)))}
        case _:
            item = getattr(kind, "item_type", None)
            if item is None:
                raise AssertionError(f"nothing is drawn for {kind}")
            return [
                drawn(item, draw, depth + 1) for _ in range(draw.choice((0, 1, 2, 40 if depth < 2 else 2)))
            ]


def entry_of(draw: random.Random, *, command: int | None = None) -> bytes:
    """Return an entry of some proposals with drawn fields, sometimes cut short or given more."""
    proposals = []
    for _ in range(draw.choice((1, 1, 3))):
        cls = COMMANDS[draw.randrange(len(COMMANDS)) if command is None else command]
        fields = drawn(kinds.type_info(cls), draw)
        if draw.random() < 0.1:
            fields = fields[: draw.randrange(len(fields)) + 1]
        elif draw.random() < 0.1:
            fields = [*fields, draw.choice((None, 1, "x", [[]], {}))]
        proposals.append([draw.randbytes(16), draw.choice(NUMBERS[:12]), draw.choice(ACTORS), fields])
    encoded: bytes = msgspec.msgpack.encode(proposals)
    return encoded


def story(seed: int, *, entries: int = 40, first: Mapping[int, int] | None = None) -> None:
    """Let a cluster with datasets apply many of them: each has outcomes, and every invariant holds at the end."""
    draw = random.Random(seed)
    ledger = ground()
    for number in range(entries):
        ledger.raw(entry_of(draw, command=(first or {}).get(number)))
    violations = check(ledger.kv)
    assert not violations, violations


def ground() -> LedgerInHand:
    """Return a ledger with two sites, people, and tasks in many states."""
    ledger = LedgerInHand(checked=False)
    ledger.found("madison", "zeuthen")
    ledger.do(SetPerson("ada", Role.ADMINISTRATOR))
    for _ in range(2):
        ledger.submit(jobs=3)
    ledger.run("madison", 1)
    ledger.start("zeuthen", *ledger.claim("zeuthen", 1))
    ledger.claim("madison", 2)
    return ledger


def story_ends(seed: int) -> None:
    """A story has its outcomes, whatever its seed."""
    story(seed)


TARGETS: Final = {"ledger": (st.integers(0, 2**32), story_ends)}
