"""Why an expression has no value.  None of these leaves the package: they become problems with their place."""

from __future__ import annotations

from iceprod_p2p.base.errors import BadInput


class ExpressionError(BadInput):
    """An expression cannot be evaluated; the message says why, as the end of a sentence."""


class Unresolved(ExpressionError):
    """A name is not known here, or a function does not accept what it was given: the phrase stays as it stands."""


class Cycle(ExpressionError):
    """A name refers to itself, directly or through others, which the message names."""


class TooCostly(ExpressionError):
    """A bound on size or depth is passed by one phrase, which stays as it stands."""


class Exhausted(ExpressionError):
    """A bound on the whole text is passed; nothing further of it is evaluated, and all of it stays as it stands."""
