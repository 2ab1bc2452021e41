"""`iceprod modules`: list and inspect the modules that a steering file may name."""

from __future__ import annotations
