"""`$eval`: our own evaluator over an allow-list of Python's syntax tree, with a budget.

Python's parser reads the text (bounded in length and nesting first); nothing of it is ever compiled or run.  Every
node costs one unit and long strings and lists more; sizes are checked *before* an operation makes them.  There are no
names but true, false, null and `math`, no attributes but the methods and functions listed here, no loops, lambdas,
assignments, comprehensions, formats with names, or calls of anything else.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expressions import calls
from iceprod_p2p.steering.expressions.budget import Budget
from iceprod_p2p.steering.expressions.errors import TooCostly, Unresolved
from iceprod_p2p.steering.expressions.sizes import check_bits, check_items, check_string, items_of
from iceprod_p2p.steering.limits import EVAL_CHARS_MAX, EVAL_DEPTH_MAX, EVAL_STEPS_MAX

_BRACKET: Final = re.compile(r"[()\[\]{}]")
# A number as one piece; what follows it directly must not be a letter (Python warns of "1if", we refuse it).
_NUMBER: Final = re.compile(
    r"(?<![\w.])(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(\w?)"
)
_LEADING_ZEROS: Final = re.compile(r"(?<![\w.])0+(?=[1-9][0-9]*(?![\w.]))")
_STRING: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_CONSTANTS: Final[Mapping[str, Value]] = {"true": True, "false": False, "null": None}

_BINARY: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Sub: operator.sub,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.RShift: operator.rshift,
}
_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, values: item in values,
    ast.NotIn: lambda item, values: item not in values,
}


def evaluate_arithmetic(text: str, budget: Budget) -> Value:
    """Return the value of one expression; its work is taken from `budget` as well as from its own bound.

    Raises Unresolved when it is not one or fails (division by zero, wrong types), TooCostly when it passes a bound.
    """
    budget.spend(min(len(text), EVAL_CHARS_MAX))  # Python's parser needs about a microsecond per character.
    node = _parse(text)
    try:
        value = _Arithmetic(budget).value(node)
    except (
        TypeError,
        ValueError,
        ZeroDivisionError,
        OverflowError,
        IndexError,
        KeyError,
        AttributeError,
    ) as bad:
        raise Unresolved(f"fails: {str(bad)[:80] or type(bad).__name__}") from bad
    return _plain(value)


def _parse(text: str) -> ast.expr:
    stripped = text.strip()
    if len(stripped) > EVAL_CHARS_MAX:
        raise TooCostly(f"is longer than {EVAL_CHARS_MAX} characters")
    if not stripped:
        raise Unresolved("is empty")
    if "\\" in stripped or "\n" in stripped:
        raise Unresolved("holds a backslash or a line break")
    code = _STRING.sub("''", stripped)
    _check_depth(code)
    for number in _NUMBER.finditer(code):
        if number[1]:
            raise Unresolved(f'is not arithmetic at "{number.group()[:20]}"')
    try:
        return ast.parse(_without_leading_zeros(stripped), mode="eval").body
    except SyntaxError as bad:
        raise Unresolved(f"is not arithmetic: {str(bad.msg)[:60]}") from bad
    except (ValueError, MemoryError, RecursionError) as bad:
        raise TooCostly("is nested too deeply") from bad


def _check_depth(code: str) -> None:
    """Refuse nested brackets before Python's parser meets them; it bounds all other depth itself."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(code):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    if deepest > EVAL_DEPTH_MAX:
        raise TooCostly(f"is nested deeper than {EVAL_DEPTH_MAX}")


def _without_leading_zeros(text: str) -> str:
    """Return the text with 007 as 7, outside strings: job numbers come padded, and Python refuses those."""
    out: list[str] = []
    end = 0
    for string in _STRING.finditer(text):
        out.append(_LEADING_ZEROS.sub("", text[end : string.start()]))
        out.append(string.group())
        end = string.end()
    out.append(_LEADING_ZEROS.sub("", text[end:]))
    return "".join(out)


class _Arithmetic:
    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.steps = 0
        self.depth = 0

    def spend(self, steps: int) -> None:
        self.budget.spend(steps)
        self.steps += steps
        if self.steps > EVAL_STEPS_MAX:
            raise TooCostly(f"takes more than {EVAL_STEPS_MAX} steps")

    def value(self, node: ast.expr) -> Any:
        """Return a node's value, with its size checked and paid for."""
        self.spend(1)
        self.depth += 1
        if self.depth > 4 * EVAL_DEPTH_MAX:
            raise TooCostly(f"is nested deeper than {4 * EVAL_DEPTH_MAX}")
        rule = _RULES.get(type(node))
        if rule is None:
            raise Unresolved(f"holds {_words(node)}, which is not arithmetic")
        value = rule(self, node)
        self.depth -= 1
        bits = value.bit_length() if isinstance(value, int) else 0
        self.spend(items_of(value) // 2 + bits // 16)  # Paid also by what is then refused.
        check_items(value)
        return value

    def constant(self, node: ast.Constant) -> Any:
        if node.value is None or isinstance(node.value, (bool, int, float, str)):
            check_bits(node.value)
            return node.value
        raise Unresolved(f"holds {type(node.value).__name__}, which is not arithmetic")

    def name(self, node: ast.Name) -> Any:
        if node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        raise Unresolved(f'holds the name "{node.id[:40]}", which is not known in $eval')

    def unary(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not value
        if not isinstance(value, (int, float)):
            raise Unresolved("has a sign before what is no number")
        if isinstance(node.op, ast.USub):
            return -value
        return +value if isinstance(node.op, ast.UAdd) else ~value  # type: ignore[operator]

    def binary(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        kind = type(node.op)
        if kind is ast.Add:
            return calls.add(left, right)
        if kind is ast.Mult:
            return calls.multiply(left, right)
        if kind is ast.Pow:
            return calls.power(left, right)
        if kind is ast.LShift:
            return calls.shift_left(left, right)
        if kind is ast.Mod:
            return calls.modulo(left, right)
        rule = _BINARY.get(kind)
        if rule is None:
            raise Unresolved(f"holds {_words(node.op)}, which is not arithmetic")
        if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            raise Unresolved("has an operator between what are no numbers")
        return rule(left, right)

    def boolean(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        value: Any = None
        for part in node.values:
            value = self.value(part)
            if bool(value) is stop:
                break
        return value

    def compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        for op, part in zip(node.ops, node.comparators, strict=True):
            rule = _COMPARE.get(type(op))
            if rule is None:
                raise Unresolved(f"holds {_words(op)}, which is not arithmetic")
            right = self.value(part)
            self.spend(min(items_of(left), items_of(right)))
            if not rule(left, right):
                return False
            left = right
        return True

    def conditional(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def sequence(self, node: ast.List | ast.Tuple) -> Any:
        values = [self.value(item) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)

    def mapping(self, node: ast.Dict) -> Any:
        found: dict[Any, Any] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            if key is None:
                raise Unresolved("holds **, which is not arithmetic")
            found[self.value(key)] = self.value(item)
        return found

    def subscript(self, node: ast.Subscript) -> Any:
        value = self.value(node.value)
        if not isinstance(value, (str, list, tuple, dict)):
            raise Unresolved("takes an item of what has none")
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            bounds = [None if part is None else self.value(part) for part in parts]
            if isinstance(value, dict) or not all(
                bound is None or isinstance(bound, int) for bound in bounds
            ):
                raise Unresolved("has a slice that is none")
            return value[slice(*bounds)]
        return value[self.value(node.slice)]

    def attribute(self, node: ast.Attribute) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id == "math" and node.attr in calls.MATH_CONSTANTS:
            return calls.MATH_CONSTANTS[node.attr]
        raise Unresolved(f'holds ".{node.attr[:40]}", which is not allowed in $eval')

    def call(self, node: ast.Call) -> Any:
        if any(isinstance(argument, ast.Starred) for argument in node.args) or node.keywords:
            return self.keyword_call(node)
        function = self.function(node.func)
        return function(*[self.value(argument) for argument in node.args])

    def keyword_call(self, node: ast.Call) -> Any:
        """Only `sorted(list, reverse=...)` takes an argument by name."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        named = {keyword.arg for keyword in node.keywords}
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        if name != "sorted" or named != {"reverse"} or starred or len(node.args) != 1:
            raise Unresolved("calls a function with arguments by name, which is not allowed in $eval")
        return calls.FUNCTIONS["sorted"](self.value(node.args[0]), self.value(node.keywords[0].value))

    def function(self, node: ast.expr) -> Callable[..., Any]:
        if isinstance(node, ast.Name):
            known = calls.FUNCTIONS.get(node.id)
            if known is None:
                raise Unresolved(f'calls "{node.id[:40]}", which is not known in $eval')
            return known
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "math":
                known = calls.MATH.get(node.attr)
                if known is None:
                    raise Unresolved(f'calls "math.{node.attr[:40]}", which is not known in $eval')
                return known
            method = calls.METHODS.get(node.attr)
            if method is None:
                raise Unresolved(f'calls ".{node.attr[:40]}", which is not allowed in $eval')
            owner = self.value(node.value)
            if not isinstance(owner, str):
                raise Unresolved(f'calls ".{node.attr[:40]}" of what is no text')
            return lambda *arguments: method(owner, *arguments)
        raise Unresolved("calls what is no function")


_RULES: Final[Mapping[type[ast.expr], Callable[[_Arithmetic, Any], Any]]] = {
    ast.Constant: _Arithmetic.constant,
    ast.Name: _Arithmetic.name,
    ast.UnaryOp: _Arithmetic.unary,
    ast.BinOp: _Arithmetic.binary,
    ast.BoolOp: _Arithmetic.boolean,
    ast.Compare: _Arithmetic.compare,
    ast.IfExp: _Arithmetic.conditional,
    ast.List: _Arithmetic.sequence,
    ast.Tuple: _Arithmetic.sequence,
    ast.Dict: _Arithmetic.mapping,
    ast.Subscript: _Arithmetic.subscript,
    ast.Attribute: _Arithmetic.attribute,
    ast.Call: _Arithmetic.call,
}


def _words(node: ast.AST) -> str:
    return {
        "ListComp": "a comprehension",
        "SetComp": "a comprehension",
        "DictComp": "a comprehension",
        "GeneratorExp": "a comprehension",
        "Lambda": "a lambda",
        "JoinedStr": "an f-string",
        "NamedExpr": "an assignment",
    }.get(type(node).__name__, f"a {type(node).__name__}")


def _plain(value: Any) -> Value:
    """Return a result as JSON data.  Raises Unresolved for numbers that are not finite and for other kinds."""
    if value is None:
        raise Unresolved("has no value")
    return _plain_inside(value)


def _plain_inside(value: Any) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        raise Unresolved("is not a finite number")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        check_string(len(value))
        return value
    if isinstance(value, (list, tuple)):
        return [_plain_inside(item) for item in value]
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain_inside(item) for key, item in value.items()}
    raise Unresolved(f"is a {type(value).__name__}")
