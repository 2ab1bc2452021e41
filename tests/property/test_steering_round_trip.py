"""A tree survives each of the three syntaxes unchanged."""

from __future__ import annotations

import pytest

from iceprod_p2p.steering.read import SYNTAXES, check
from iceprod_p2p.steering.validate import validate
from iceprod_p2p.steering.write import canonical, write
from tests.property.steering_trees import Trees


@pytest.mark.parametrize("seed", range(60))
def test_what_is_written_in_any_syntax_reads_back_as_the_same_tree(seed: int) -> None:
    configuration = Trees(seed).configuration()
    assert [str(fault) for fault in validate(configuration)] == []
    for syntax in SYNTAXES:
        text = write(configuration, syntax)
        checked = check(text.encode(), name=f"steering.{syntax}")
        assert [str(fault) for fault in checked.faults] == []
        assert checked.syntax == syntax
        assert checked.configuration is not None
        # repr tells 1 from 1.0 and from True, which == does not.
        assert repr(checked.configuration) == repr(configuration), syntax
        assert canonical(checked.configuration) == canonical(configuration)
