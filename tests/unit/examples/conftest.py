"""The physics example's modules, run by their child process; loud skips where its packages are missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.modules.protocol import ModuleRequest, Result
from tests.unit.modules.child_process import run_module

EXAMPLES = Path(__file__).parents[3] / "examples"
MODULES = EXAMPLES / "physics" / "modules"
PACKAGES = ("numpy", "chromo", "nuflux")

Physics = Callable[..., Result]


@pytest.fixture(scope="session")
def physics() -> Physics:
    """Run one module of the example in a directory with few events; return its good result."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra [examples] is not installed: {', '.join(missing)} missing")

    def run(work_dir: Path, file: str, class_name: str, **parameters: Any) -> Result:
        request = ModuleRequest(
            work_dir=str(work_dir),
            class_name=class_name,
            src=str(MODULES / file),
            parameters=parameters,
            cpu_count=1,
        )
        ended = run_module(request)
        assert ended.result is not None, ended.log
        assert ended.result.ok, f"{ended.result.error}\n{ended.log}"
        return ended.result

    return run


@pytest.fixture(scope="session")
def sample(physics: Physics, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the generators' files and their combination, made once."""
    folder = tmp_path_factory.mktemp("sample")
    physics(folder, "cosmic_rays.py", "GenerateCosmicRays", seed=7, showers=12)
    physics(folder, "neutrinos.py", "GenerateNeutrinos", seed=7, neutrinos=10)
    infiles = ["cosmic_rays.npz", "neutrinos.npz"]
    physics(folder, "combine.py", "CombineSamples", infiles=infiles)
    return folder
