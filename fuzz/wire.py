"""What comes over the wire: frames between nodes, passkeys, tokens, and what calls of people and pilots hold."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from fuzz.ledger import ground
from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.config_people import TokensConfig
from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed
from iceprod_p2p.raft import messages
from iceprod_p2p.security.passkeys import (
    Operation,
    PasskeyKey,
    PasskeyRefused,
    PasskeySigner,
    new_signing_key,
    verify,
)
from iceprod_p2p.security.tokens import TokenIssuer
from iceprod_p2p.site import control_reads
from iceprod_p2p.site.found_files import find_files
from iceprod_p2p.site.reports import Edge, read_report
from iceprod_p2p.site.submission import check_submission
from iceprod_p2p.wire import translate
from iceprod_p2p.wire.pb import common_pb2, control_pb2, pilot_pb2
from tests.security.nasty import nasty
from tests.security.test_forged_frames import forgeries
from tests.unit.raft.fakes import Cluster

CHANGES: Final = st.lists(
    st.tuples(st.integers(0, 5_000), st.integers(0, 3), st.binary(max_size=6)), max_size=5
)
HOLDER: Final = bytes(32)


def changed(whole: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Return bytes with pieces replaced, cut out or put in."""
    for at, length, piece in changes:
        place = at % (len(whole) + 1)
        whole = whole[:place] + piece + whole[place + length :]
    return whole


@cache
def _frames() -> tuple[bytes, ...]:
    cluster = Cluster("a", "b", "c")
    return tuple(messages.encode(message) for message in forgeries(cluster.elect()))


def frame(drawn: tuple[int, list[tuple[int, int, bytes]]]) -> None:
    """A frame is a message of ours or one refusal; and a leader that gets it from a stranger leads on."""
    number, changes = drawn
    frames = _frames()
    data = changed(frames[number % len(frames)], changes)
    try:
        assert isinstance(messages.decode(data), messages.Message)
    except BadInput as refusal:
        assert len(str(refusal)) < 1_000
    messages.urgency(data)
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect()
    for sender in ("o", "x"):
        leader.engine.receive(sender, data)
    leader.engine.tick()
    assert leader.engine.failed is None and leader.engine.is_leader


@cache
def _signer() -> PasskeySigner:
    return PasskeySigner(new_signing_key(), key_id="n0", cluster="ice", site="madison")


def passkey(changes: list[tuple[int, int, bytes]]) -> None:
    """A changed passkey is refused with a reason of the list."""
    signer = _signer()
    keys = {"n0": PasskeyKey("madison", signer.public_key)}
    whole = signer.sign(
        dataset=1,
        job=0,
        task=0,
        attempt=0,
        pilot="p",
        holder=HOLDER,
        passkey_id=bytes(16),
        now_ms=0,
        lifetime_ms=1_000,
    )
    data = changed(whole, changes)
    try:
        verify(data, keys, cluster="ice", now_ms=10, operation=Operation.REPORT, holder=HOLDER)
    except PasskeyRefused as refusal:
        assert refusal.fault and data != whole
    else:
        assert data == whole


@cache
def _token_key() -> RSAPrivateKey:
    return generate_private_key(65_537, 2_048)


def token(drawn: tuple[list[tuple[int, int, bytes]], Any]) -> None:
    """A changed token is refused; one that is signed says who it is for, or is refused for what it claims."""
    changes, claims = drawn
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "keys"
        path.write_text('{"keys": [' + RSAAlgorithm.to_jwk(_token_key().public_key()) + "]}")
        config = TokensConfig(
            issuer="https://i.example", audience="us", keys_file=str(path), ca_file="", scope="", name_claim="sub",
            timeout_s=1.0, names={}, roles={},
        )  # fmt: skip
        issuer = TokenIssuer(config, ManualClock())
        usual = {"iss": "https://i.example", "aud": "us", "exp": 2**33, "sub": "ada"}
        try:
            made = jwt.encode({**usual, **claims}, _token_key(), algorithm="RS256")
        except (TypeError, ValueError):
            return
        try:
            issuer.authenticate(changed(made.encode(), changes).decode("utf-8", "replace"))
        except NotAllowed as refusal:
            assert len(str(refusal)) < 1_000


_CLAIMS: Final = st.dictionaries(
    st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "scope", "groups", "wlcg.groups"]),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


@cache
def _ledger() -> Any:
    return ground()


def call(seed: int) -> None:
    """What calls hold is read or refused: lists, reports, submissions, patterns."""
    draw, kv = random.Random(seed), _ledger().kv
    edge = Edge("ice", 10, {"n0": PasskeyKey("madison", _signer().public_key)})
    works = (
        lambda: control_reads.list_datasets(kv, nasty(control_pb2.ListDatasetsRequest, draw)),
        lambda: control_reads.list_jobs(kv, 1, nasty(control_pb2.ListJobsRequest, draw)),
        lambda: control_reads.list_tasks(kv, 1, nasty(control_pb2.ListTasksRequest, draw)),
        lambda: control_reads.get_task(kv, 1, nasty(control_pb2.GetTaskRequest, draw)),
        lambda: control_reads.list_files(kv, 1, nasty(control_pb2.ListFilesRequest, draw)),
        lambda: control_reads.list_audit(kv, nasty(control_pb2.ListAuditRequest, draw)),
        lambda: control_reads.list_people(kv, nasty(control_pb2.ListPeopleRequest, draw)),
        lambda: find_files(kv, nasty(pilot_pb2.FindFilesRequest, draw)),
        lambda: translate.files_from([nasty(common_pb2.FileEntry, draw)]),
        lambda: check_submission(nasty(control_pb2.SubmitRequest, draw)),
        lambda: read_report(nasty(pilot_pb2.Report, draw), _IDENTITY, edge, here="madison"),
    )
    for work in works:
        try:
            work()
        except IceProdError as refusal:
            assert len(refusal.message) < 20_000


def _identity() -> Any:
    from iceprod_p2p.model.identity import Identity, IdentityKind

    return Identity(IdentityKind.PILOT, "p", "madison", "ice", key_digest=HOLDER)


_IDENTITY: Final = _identity()
TARGETS: Final = {
    "frames": (st.tuples(st.integers(0, 10_000), CHANGES), frame),
    "passkeys": (CHANGES, passkey),
    "tokens": (st.tuples(CHANGES, _CLAIMS), token),
    "calls": (st.integers(0, 2**32), call),
}
