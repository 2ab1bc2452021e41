"""One real cluster of three voters for every hostile caller of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.production import production
from tests.security.scene import Scene


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with production(tmp_path_factory.mktemp("hostile") / "cluster") as running:
        context = load_context(f"{running.cluster.context_directory}/")
        leader = running.session.connection.call("ClusterStatus", control_pb2.ClusterStatusRequest()).leader
        yield Scene(running, context, next(node for node in context.nodes if node.node_id == leader))
