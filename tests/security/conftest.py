"""One real cluster of three voters for every hostile caller of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.production import production
from tests.security.scene import Scene

# Attackers, three nodes and whatever else the machine does share its cores: what a node does not do for three
# seconds is its own fault.
PATIENT = "election_ms_least = 3000\nelection_ms_most = 5000"


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with production(tmp_path_factory.mktemp("hostile") / "cluster", node=PATIENT) as running:
        context = load_context(f"{running.cluster.context_directory}/")
        leader = running.session.connection.call("ClusterStatus", control_pb2.ClusterStatusRequest()).leader
        yield Scene(running, context, next(node for node in context.nodes if node.node_id == leader))
