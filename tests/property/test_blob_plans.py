"""Plans for content: copies come back to their number by one hand each, nothing that somebody needs ever goes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from iceprod_p2p.site.plans.blobs import KnownBlob, plan_blobs
from iceprod_p2p.site.plans.cleanup import Content, Use, spent_content

NODES = tuple(f"n{number}" for number in range(6))
BLOBS = st.builds(
    KnownBlob,
    sha256=st.integers(0, 1 << 64).map(lambda number: f"{number:064x}"),
    node_ids=st.sets(st.sampled_from(NODES)).map(lambda nodes: tuple(sorted(nodes))),
    needed=st.booleans(),
    old=st.booleans(),
)


@settings(max_examples=150)
@given(
    st.lists(BLOBS, max_size=8, unique_by=lambda blob: blob.sha256),
    st.sets(st.sampled_from(NODES), min_size=1).map(sorted),
    st.integers(1, 4),
    st.sets(st.tuples(st.sampled_from(NODES), st.integers(0, 7)), max_size=6),
)
def test_copies_are_replaced_until_there_are_enough_by_one_node_for_each(
    blobs: list[KnownBlob], well: list[str], copies: int, lost: set[tuple[str, int]]
) -> None:
    """Every well node plans from the same records; some have lost what they are said to hold."""
    held = {
        blob.sha256: {node for node in blob.node_ids if (node, index) not in lost}
        for index, blob in enumerate(blobs)
    }
    known = {blob.sha256: blob for blob in blobs}
    for turn in range(8):
        pushed: list[str] = []
        plans = {
            me: plan_blobs(
                known.values(),
                me=me,
                here={digest for digest, nodes in held.items() if me in nodes},
                well=well,
                copies=copies,
                forgets=me == well[0],
            )
            for me in well
        }
        for me, plan in plans.items():
            for push in plan.pushes:
                pushed.append(push.sha256)
                took = push.to[: push.count]
                assert me in held[push.sha256] and not set(took) & held[push.sha256]
                held[push.sha256] |= set(took)
                known[push.sha256] = _with(known[push.sha256], took)
            for digest in plan.lost:
                known[digest] = replace(
                    known[digest], node_ids=tuple(n for n in known[digest].node_ids if n != me)
                )
            for digest in plan.forgotten:
                assert not known[digest].needed and known[digest].old
        assert turn > 0 or len(pushed) == len(set(pushed))  # Two hands only while a record is wrong.
    for blob in known.values():
        holders = held[blob.sha256] & set(well)
        if blob.needed and holders:
            assert len(holders) >= min(copies, len(well))
    forgotten = {digest for plan in plans.values() for digest in plan.forgotten}
    assert forgotten == {blob.sha256 for blob in known.values() if not blob.needed and blob.old}


def _with(blob: KnownBlob, nodes: tuple[str, ...]) -> KnownBlob:
    return replace(blob, node_ids=tuple(sorted({*blob.node_ids, *nodes})))


USES = st.builds(Use, st.integers(1, 3), st.integers(-1, 3), st.sampled_from(["a", "b"]), st.booleans())


@given(
    st.lists(
        st.builds(
            Content,
            st.integers(0, 1 << 64).map(str),
            st.floats(0, 100_000),
            st.booleans(),
            st.lists(USES, max_size=4).map(tuple),
        ),
        max_size=12,
    ),
    st.floats(0, 50_000),
)
def test_content_goes_when_all_who_could_read_it_are_done_and_never_before(
    found: list[Content], grace_s: float
) -> None:
    gone = spent_content(found, grace_s=grace_s)
    for content in found:
        needed = content.kept or any(not use.spent for use in content.uses)
        new = content.idle_s < grace_s
        unrecorded = not content.uses
        assert (content in gone) is not (needed or new or unrecorded)
