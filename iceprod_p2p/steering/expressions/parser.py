"""Tokens to a sentence: texts and phrases.

    sentence  := (text | phrase)*
    phrase    := "$" word? "(" sentence ")" subscript*
    subscript := "[" sentence "]"

Parentheses and brackets that belong to no phrase are text, and must balance inside one.  What is never closed is
text as well, from its opening on, with the phrases inside it intact.  One pass, linear, without recursion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

from iceprod_p2p.steering.expressions.errors import Exhausted
from iceprod_p2p.steering.expressions.lexer import Kind, tokens
from iceprod_p2p.steering.limits import EXPRESSION_DEPTH_MAX

Sentence: TypeAlias = "list[str | Phrase]"


@dataclass(slots=True)
class Phrase:
    """``$name(argument)[subscript]...``; `column` is where its dollar stands, from 0."""

    name: str
    argument: Sentence
    column: int
    subscripts: list[Sentence] = field(default_factory=list)


class _Frame(Enum):
    ROOT = auto()
    PHRASE = auto()
    SUBSCRIPT = auto()
    PAREN = auto()  # "(" that belongs to no phrase.
    BRACKET = auto()  # "[" that belongs to no phrase.


@dataclass(slots=True)
class _Open:
    kind: _Frame
    sentence: Sentence
    opening: str  # The text to put back if it is never closed.
    phrase: Phrase | None = None


def parse(text: str) -> Sentence:
    """Return the sentence of `text`.  Raises Exhausted when it is nested deeper than EXPRESSION_DEPTH_MAX."""
    stack = [_Open(_Frame.ROOT, [], "")]
    closable = 0  # Open phrases and parentheses: a ")" without one is text.
    for token in tokens(text):
        top = stack[-1]
        match token.kind:
            case Kind.TEXT:
                top.sentence.append(token.text)
                continue
            case Kind.OPEN_PHRASE:
                phrase = Phrase(token.text, [], token.column)
                stack.append(_Open(_Frame.PHRASE, phrase.argument, f"${token.text}(", phrase))
                closable += 1
            case Kind.OPEN:
                stack.append(_Open(_Frame.PAREN, [], "("))
                closable += 1
            case Kind.OPEN_SUBSCRIPT:
                last = top.sentence[-1] if top.sentence else None
                if isinstance(last, Phrase):
                    stack.append(_Open(_Frame.SUBSCRIPT, [], "[", last))
                else:
                    stack.append(_Open(_Frame.BRACKET, [], "["))
            case Kind.CLOSE:
                if not closable:
                    top.sentence.append(")")
                    continue
                while stack[-1].kind not in (_Frame.PHRASE, _Frame.PAREN):
                    _unclosed(stack)
                closable -= 1
                _close(stack, ")")
            case Kind.CLOSE_SUBSCRIPT:
                if top.kind in (_Frame.SUBSCRIPT, _Frame.BRACKET):
                    _close(stack, "]")
                else:
                    top.sentence.append("]")
        if len(stack) > EXPRESSION_DEPTH_MAX:
            raise Exhausted(f"nested deeper than {EXPRESSION_DEPTH_MAX}")
    while len(stack) > 1:
        _unclosed(stack)
    return stack[0].sentence


def _close(stack: list[_Open], closing: str) -> None:
    done = stack.pop()
    into = stack[-1].sentence
    if done.kind is _Frame.PHRASE and done.phrase is not None:
        into.append(done.phrase)
    elif done.kind is _Frame.SUBSCRIPT and done.phrase is not None:
        done.phrase.subscripts.append(done.sentence)
    else:
        into.append(done.opening)
        into.extend(done.sentence)
        into.append(closing)


def _unclosed(stack: list[_Open]) -> None:
    lost = stack.pop()
    stack[-1].sentence.append(lost.opening)
    stack[-1].sentence.extend(lost.sentence)
