"""Well-formed calls of callers who belong, with contents that no honest program sends: every method of every door.

Each is answered or refused in words; none ends in "the node failed on this call", which is what a fault of ours looks
like from outside.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.model.identity import IdentityKind
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.errors import from_rpc_error
from iceprod_p2p.wire.pb import control_pb2, enrol_pb2, peer_pb2, pilot_pb2
from tests.security.nasty import nasty
from tests.security.scene import Scene, unmoved
from tests.security.test_callers import Keys, keys, now
from tests.unit.security.rings import issued

__all__ = ["keys"]

ROUNDS = 6  # Of each method; `make fuzz` draws more.
# What would be done if it were asked for rightly: these words are drawn by nobody here.
LEFT_OUT = {"Backup", "CheckCluster", "Link", "TestSite", "TestGrid"}
OURS = "failed on this call"
ANSWER_S_MAX = 45.0  # Of one call; some ask other nodes, and wait for them.


def call(channel: grpc.Channel, service: ServiceDescriptor, name: str, draw: random.Random) -> str:
    """Call a method with drawn messages; return what is wrong with its answer, empty when nothing is."""
    method = service.methods_by_name[name]
    asks, answers = method.input_type._concrete_class, method.output_type._concrete_class
    path = f"/{service.full_name}/{name}"
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    function = getattr(channel, kind)(
        path, request_serializer=asks.SerializeToString, response_deserializer=answers.FromString
    )
    count = draw.choice((0, 1, 3)) if method.client_streaming else 1
    messages = [nasty(asks, draw) for _ in range(count)]
    try:
        answer = function(iter(messages) if method.client_streaming else messages[0], timeout=ANSWER_S_MAX)
        if method.server_streaming:
            list(itertools.islice(answer, 3))
            answer.cancel()
    except grpc.RpcError as failure:
        error = from_rpc_error(failure)  # type: ignore[arg-type]
        code = failure.code()
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) or OURS in str(error):
            return f"{name}: {code} {error}: {str(messages)[:1_500]}"
        if isinstance(error, Unavailable) and code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{name}: no answer in {ANSWER_S_MAX:.0f} s: {str(messages)[:1_500]}"
        if len(str(error)) > 6_000 or not str(error).replace("\n", " ").isprintable():
            return f"{name}: said badly: {str(error)[:500]!r}"
    return ""


@pytest.mark.parametrize("door", ["Control", "Pilots", "Peer", "Enrol"])
def test_no_content_of_a_call_is_more_than_refused(scene: Scene, keys: Keys, door: str) -> None:
    now_ms = int(now().timestamp() * 1_000)
    tls, address = scene.context.tls, scene.node.address
    if door == "Pilots":
        tls = keys.tls(*issued(keys.site, IdentityKind.PILOT, "p-nasty", now_ms=now_ms))
    elif door == "Peer":
        tls = keys.tls(*issued(keys.site, IdentityKind.NODE, "nasty", now_ms=now_ms))
    elif door == "Enrol":
        tls, address = TlsMaterial.anonymous(keys.root_pem), scene.node.enrol_address
    module: Any = {"Control": control_pb2, "Pilots": pilot_pb2, "Peer": peer_pb2, "Enrol": enrol_pb2}[door]
    service = module.DESCRIPTOR.services_by_name[door]
    faults = []
    with unmoved(scene), blocking_channel(address, tls, server_name=scene.node.server_name) as channel:
        for name in sorted(set(service.methods_by_name) - LEFT_OUT):
            for number in range(ROUNDS):
                fault = call(channel, service, name, random.Random(f"{name} {number}"))
                if fault:
                    faults.append(fault)
    assert not faults, "\n".join(faults)
