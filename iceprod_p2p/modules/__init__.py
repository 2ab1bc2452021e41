"""Modules: the smallest steps of a job, each run in a child process of the pilot.

`base` and `function` are the two forms a module is written in, `registry` finds one by name, `protocol` and
`child` run it, and the rest is a library of ready ones.  What module authors need is importable from here.
"""

from iceprod_p2p.modules.base import IPModule
from iceprod_p2p.modules.context import ModuleContext
from iceprod_p2p.modules.function import Unit, module_function

__all__ = ["IPModule", "ModuleContext", "Unit", "module_function"]
