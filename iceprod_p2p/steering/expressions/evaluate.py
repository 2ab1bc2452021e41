"""Evaluate expressions: innermost first, again until nothing changes.

A phrase that cannot be resolved stays as it stands, with its inner parts replaced, and is noted with its place; of a
list that has no such item the list stays, with its subscript.  A parameter's own text is expanded when it is looked
up, with the names on the way remembered: a name that comes back to itself is a cycle, which is named and never run.
Every text has a budget of phrases, characters and depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expressions import formats, functions
from iceprod_p2p.steering.expressions.arithmetic import evaluate_arithmetic
from iceprod_p2p.steering.expressions.budget import Budget
from iceprod_p2p.steering.expressions.context import LOOKUPS, Context
from iceprod_p2p.steering.expressions.errors import Cycle, Exhausted, ExpressionError, Unresolved
from iceprod_p2p.steering.expressions.formats import fill_template
from iceprod_p2p.steering.expressions.lexer import literal, plain
from iceprod_p2p.steering.expressions.parser import Phrase, Sentence, parse
from iceprod_p2p.steering.expressions.pieces import (
    Piece,
    final,
    from_function,
    from_value,
    inside_text,
    item_of,
)
from iceprod_p2p.steering.faults import nearest
from iceprod_p2p.steering.limits import (
    DOCUMENT_WORK_MAX,
    EXPANDED_CHARS_MAX,
    LOOKUP_DEPTH_MAX,
    PROBLEMS_MAX,
    ROUNDS_MAX,
    TEXT_WORK_MAX,
)
from iceprod_p2p.steering.values import to_text

FUNCTIONS: Final = ("eval", "sprintf", "choice", *functions.REDUCTIONS)
_NAMES: Final = (*LOOKUPS[1:], *FUNCTIONS)
_PASSING: Final = (
    "sprintf",
    "choice",
)  # Text goes through them: a phrase without value does too, as in IceProd.
_PATHS: Final = {
    "steering": "steering.parameters",
    "system": "steering.system",
}  # Where scopes are in the tree.
_HINTS_MAX: Final = 5  # Right names are sought for the first few wrong ones only: the search is slow.
_SPECIAL: Final = "$()[]\\"


@dataclass(frozen=True, slots=True)
class Problem:
    """One phrase that has no value: the place of its text in the tree, its column (from 1), and why."""

    place: str
    column: int
    phrase: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place or 'expression'}:{self.column}: {self.phrase} {self.reason}"


@dataclass(frozen=True, slots=True)
class Expansion:
    """The value of an expression; `resolved` says that no phrase in it was left as it stands."""

    value: Value
    resolved: bool
    problems: tuple[Problem, ...] = ()


def expand(value: Value, context: Context) -> Expansion:
    """Return a value with every expression in it evaluated, texts of lists and objects included.

    Never raises: what passes a bound stays as it stands and is a problem.
    """
    return Expander(context).expand(value)


class _Known(NamedTuple):
    piece: Piece
    problems: tuple[Problem, ...]
    lasting: tuple[Problem, ...]
    weight: int  # Parts that it would have if it were written out.


@dataclass(slots=True)
class _Part:
    """A sentence's value, and whether its phrases are resolved; `results` tells which texts in it are theirs."""

    piece: Piece
    resolved: bool
    texts: list[str] = field(default_factory=list)
    results: list[bool] = field(default_factory=list)

    def arguments(self) -> str:
        """Return the text with the results of phrases made literal, so that commas in them do not split.

        A phrase that stands alone is no argument among others: its result is split.
        """
        if len(self.texts) == 1:
            return self.texts[0]
        pairs = zip(self.texts, self.results, strict=True)
        return "".join(literal(text) if is_result else text for text, is_result in pairs)


@dataclass(slots=True)
class Expander:
    """Expands values in one context, and remembers the parameters that it has expanded already."""

    context: Context
    known: dict[tuple[str, str], _Known] = field(default_factory=dict)
    way: list[tuple[str, str]] = field(default_factory=list)  # The names being looked up, outermost first.
    problems: dict[Problem, None] = field(default_factory=dict)
    lasting: dict[Problem, None] = field(default_factory=dict)  # Of phrases that leave no phrase behind.
    origins: dict[str, Problem] = field(default_factory=dict)  # Where each unresolved phrase was seen first.
    place: str = ""
    document: Budget = field(default_factory=lambda: Budget(DOCUMENT_WORK_MAX))
    budget: Budget = field(default_factory=lambda: Budget(TEXT_WORK_MAX))
    hints: int = 0
    # Parts of the value so far, written out: lists that hold one list many times share it, and must not fold out.
    weight: int = 0

    def expand(self, value: Value, place: str | None = None, *, as_text: bool = False) -> Expansion:
        """Return a value expanded; `place` is its path in the tree, the context's when left out.

        With `as_text` a text stays one: ``007`` is not read as a number.
        """
        self.problems = {}
        self.lasting = {}
        self.origins = {}
        self.way = []
        self.budget = Budget(TEXT_WORK_MAX, of=self.document)
        here = self.context.place if place is None else place
        self.place = here
        try:
            if as_text and isinstance(value, str):
                found: Value = plain(inside_text(self.text(value)))
            else:
                found = self.value(value)
        except Exhausted as exhausted:
            shown = value if isinstance(value, str) else "the value"
            return Expansion(value, False, (Problem(here, 1, shown[:60], exhausted.message),))
        return Expansion(found, not self.problems, tuple(self.problems)[:PROBLEMS_MAX])

    def value(self, value: Value) -> Value:
        """Return a value with everything in it expanded and typed."""
        if isinstance(value, str):
            piece = self.text(value)
            if isinstance(piece, str):
                self.weight += len(piece) // 4
                if piece.lstrip()[:1] in ("[", "{"):  # It is read as JSON, and what looks so in it too.
                    self.budget.spend(len(piece) // 8 + 3 * (piece.count("[") + piece.count("{")))
            return final(piece)
        if isinstance(value, (list, dict)):
            self.budget.spend(len(value))
            self.weight += len(value)
            here = self.place
            try:
                if isinstance(value, list):
                    return [self.at(f"{here}[{index}]", item) for index, item in enumerate(value)]
                return {
                    to_text(self.at(f"{here}.{key}", key)): self.at(f"{here}.{key}", item)
                    for key, item in value.items()
                }
            finally:
                self.place = here
        return value

    def at(self, place: str, value: Value) -> Value:
        self.place = place
        return self.value(value)

    def text(self, text: str) -> Piece:
        """Return a text expanded until nothing changes."""
        current = text
        before = dict(self.problems)
        for _round in range(ROUNDS_MAX):
            if "$" not in current and "\\" not in current:
                return current
            if len(current) > EXPANDED_CHARS_MAX:
                raise Exhausted(f"is longer than {EXPANDED_CHARS_MAX} characters")
            self.budget.spend(len(current) // 256 + sum(map(current.count, _SPECIAL)))
            self.problems = {
                **before,
                **self.lasting,
            }  # Only the last round's count: a later one may resolve more.
            piece = self.sentence(parse(current)).piece
            if not isinstance(piece, str) or piece == current:
                return piece
            current = piece
        raise Exhausted(f"does not come to rest after {ROUNDS_MAX} rounds")

    def sentence(self, sentence: Sentence) -> _Part:
        texts: list[str] = []
        resolved = True
        size = 0
        for part in sentence:
            if isinstance(part, str):
                texts.append(part)
            else:
                piece, known = self.phrase(part)
                resolved = resolved and known
                if len(sentence) == 1 and not isinstance(piece, str):
                    return _Part(piece, known)
                texts.append(inside_text(piece))
                self.budget.spend(len(texts[-1]) // (16 if isinstance(piece, str) else 4))
            size += len(texts[-1])
            if size > EXPANDED_CHARS_MAX:
                raise Exhausted(f"becomes longer than {EXPANDED_CHARS_MAX} characters")
        return _Part("".join(texts), resolved, texts, [not isinstance(part, str) for part in sentence])

    def phrase(self, phrase: Phrase) -> tuple[Piece, bool]:
        """Return the value of a phrase and True, or the phrase with its inner parts replaced and False."""
        self.budget.spend(4)
        argument = self.sentence(phrase.argument)
        subscripts = [self.sentence(subscript) for subscript in phrase.subscripts]
        inner = argument.resolved and all(subscript.resolved for subscript in subscripts)
        try:
            if phrase.name in FUNCTIONS and not argument.resolved and not self.passes(phrase, argument):
                raise Unresolved("holds a phrase that is not resolved")
            piece = self.apply(phrase, argument)
            if subscripts:
                return self.subscripted(phrase, argument, piece, subscripts)
            return piece, argument.resolved or phrase.name not in FUNCTIONS
        except ExpressionError as why:
            if isinstance(why, Exhausted) or (isinstance(why, Cycle) and self.way):
                raise  # A cycle is the fault of the whole way that leads into it.
            text = f"${phrase.name}({inside_text(argument.piece)}){_brackets(subscripts)}"
            if inner and len(self.problems) < PROBLEMS_MAX:
                self.note(Problem(self.place, phrase.column + 1, plain(text)[:80], why.message))
            return text, False

    def passes(self, phrase: Phrase, argument: _Part) -> bool:
        """Return whether a phrase without value comes out of a function whole."""
        return (
            phrase.name in _PASSING
            and not phrase.subscripts
            and not formats.cuts(inside_text(argument.piece))
        )

    def subscripted(
        self, phrase: Phrase, argument: _Part, piece: Piece, subscripts: list[_Part]
    ) -> tuple[Piece, bool]:
        """Return the item that the subscripts name; else what was found, with the subscripts left, and False."""
        for number, subscript in enumerate(subscripts):
            if isinstance(piece, str):
                self.budget.spend(len(piece) // 4)  # A text may be a list, which is read to find its item.
            try:
                piece = item_of(piece, plain(inside_text(subscript.piece)))
            except Unresolved as why:
                if subscript.resolved and len(self.problems) < PROBLEMS_MAX:
                    shown = f"${phrase.name}({inside_text(argument.piece)}){_brackets(subscripts)}"
                    problem = Problem(self.place, phrase.column + 1, plain(shown)[:80], why.message)
                    self.lasting[problem] = self.problems[problem] = None
                return inside_text(piece) + _brackets(subscripts[number:]), False
        return piece, True

    def note(self, problem: Problem) -> None:
        """Note a problem; a phrase that came out of a parameter is noted at its place there."""
        self.problems[self.origins.setdefault(problem.phrase, problem)] = None

    def apply(self, phrase: Phrase, argument: _Part) -> Piece:
        name = phrase.name
        text = inside_text(argument.piece)
        if name in LOOKUPS:
            return self.look_up(name, plain(text))
        self.budget.spend(len(text) // (4 if isinstance(argument.piece, str) else 2))
        if name == "eval":
            return from_function(evaluate_arithmetic(plain(text), self.budget))
        self.budget.spend(2 * text.count("%") + text.count(","))
        if name == "sprintf":
            return from_function(
                functions.sprintf(argument.arguments() if isinstance(argument.piece, str) else text)
            )
        value = argument.arguments() if isinstance(argument.piece, str) else argument.piece
        if name == "choice":
            args = self.context.args
            key = (self.context.seed, args.get("job", 0), args.get("task", 0), self.place, phrase.column)
            return from_function(functions.choice(value, *key))
        if name in functions.REDUCTIONS:
            return from_function(functions.reduce(name, value))
        self.hints += 1
        hint = nearest(name, _NAMES) if self.hints <= _HINTS_MAX else ""
        raise Unresolved(f"is no function{f': did you mean ${hint}(...)?' if hint else ''}")

    def look_up(self, lookup: str, name: str) -> Piece:
        found = self.context.find(lookup, name)
        if found is None:
            raise Unresolved("is not known here")
        if found.value is None:
            raise Unresolved("has no value")
        key = (found.scope, name)
        if key in self.way:
            names = [f"{scope}({known})" for scope, known in (*self.way[self.way.index(key) :], key)]
            raise Cycle(f"refers to itself: {' -> '.join(names)}")
        if not isinstance(found.value, (str, list, dict)):
            return to_text(found.value)
        known = self.known.get(key)
        if known is None:
            before = self.weight
            known = self.expand_parameter(key, found.value)
            self.known[key] = known
            self.weight = before
        if not isinstance(known.piece, str):
            self.budget.spend(known.weight // 2)
            self.weight += known.weight
        for problem in known.problems:
            self.note(problem)
        self.lasting.update(dict.fromkeys(known.lasting))
        return known.piece

    def expand_parameter(self, key: tuple[str, str], value: Value) -> _Known:
        if len(self.way) >= LOOKUP_DEPTH_MAX:
            raise Exhausted(f"refers to parameters more than {LOOKUP_DEPTH_MAX} deep")
        outside, lasting, place, weight = self.problems, self.lasting, self.place, self.weight
        self.problems, self.lasting = {}, {}
        self.place = f"{_PATHS.get(key[0], key[0])}.{key[1]}"
        self.way.append(key)
        try:
            if isinstance(value, str):
                text = self.filled(value) if key[0] == "metadata" else value
                piece = self.text(text)
            else:
                piece = from_value(self.value(value))
            return _Known(piece, tuple(self.problems), tuple(self.lasting), self.weight - weight)
        finally:
            self.way.pop()
            self.problems, self.lasting, self.place = outside, lasting, place

    def filled(self, template: str) -> str:
        """Return a metadata text with its ``%(name)s`` filled from the metadata."""
        if len(template) > EXPANDED_CHARS_MAX:
            raise Exhausted(f"is longer than {EXPANDED_CHARS_MAX} characters")
        self.budget.spend(2 * template.count("%"))
        text, missing = fill_template(template, self.context.metadata)
        for name in missing:
            problem = Problem(self.place, 1, f"%({name[:60]})", "is not in the metadata")
            self.lasting[problem] = self.problems[problem] = None
        return text


def _brackets(subscripts: list[_Part]) -> str:
    return "".join(f"[{inside_text(subscript.piece)}]" for subscript in subscripts)
