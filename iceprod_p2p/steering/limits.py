"""The bounds on steering text and expressions, each with its reason.

IceProd's own production files in its repository are about 10 kB with 300 values.  The bounds leave more than an order
of magnitude above that, and let a hostile file end within about 50 ms and 64 MiB.
"""

from __future__ import annotations

from typing import Final

FILE_BYTES_MAX: Final = 1024 * 1024  # Whole file, checked before anything is decoded.
DEPTH_MAX: Final = 48  # Nested elements, lists and objects; the tree itself needs nine.
NODES_MAX: Final = 6_000  # Elements, attributes, list items and object entries together.
TEXT_CHARS_MAX: Final = 262_144  # One scalar, attribute or element text.
NAME_CHARS_MAX: Final = 256  # Names of tasks, trays, modules, parameters.
ANCHORS_MAX: Final = 500  # Of one YAML file.
FAULTS_MAX: Final = 200  # More than a person reads at once; reading stops there.
TASKS_MAX: Final = 2_000  # Per dataset: one entry of the ledger carries all their shapes.
ITERATIONS_MAX: Final = 100_000  # Of one tray.
MODULE_RUNS_MAX: Final = 200_000  # Modules times iterations in one task.

EXPRESSION_DEPTH_MAX: Final = 64  # Nested phrases, brackets and parentheses in one text.
LOOKUP_DEPTH_MAX: Final = 40  # A parameter that refers to a parameter that refers ...
EXPANDED_CHARS_MAX: Final = 131_072  # Of one expanded text.
TEXT_WORK_MAX: Final = 24_000  # Work units for one text, about a microsecond each; parameters in it included.
DOCUMENT_WORK_MAX: Final = 4_000_000  # For all texts of one task or one check together.
CHECK_WORK_MAX: Final = 8_000  # For all texts of a file when only unresolved phrases are sought.
PROBLEMS_MAX: Final = 100  # Problems kept of one text.
ROUNDS_MAX: Final = 20  # How often a result is parsed again before we say it does not come to rest.

EVAL_CHARS_MAX: Final = 4_096  # Text of one $eval.
EVAL_DEPTH_MAX: Final = 40  # Nested parts of one $eval.
EVAL_STEPS_MAX: Final = 10_000  # Work units of one $eval: one per node, more for long strings and lists.
EVAL_INT_BITS_MAX: Final = 4_096
EVAL_STRING_CHARS_MAX: Final = 65_536
EVAL_ITEMS_MAX: Final = 5_000  # Items of a list with everything nested in it.
FORMAT_WIDTH_MAX: Final = 1_000  # Width and precision in a format.
REFERENCES_MAX: Final = 8_500  # References between parameters that a check follows in search of cycles.

REQUEST_BYTES_MAX: Final = (
    4 * 1024 * 1024
)  # One line of a batch, or one context: a whole file fits with escapes.
CONTEXT_DEPTH_MAX: Final = 48  # As files.
CONTEXT_NODES_MAX: Final = 20_000
