"""One-time secrets and invitations: right once, for one name, in time, for one key."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed
from iceprod_p2p.security.certificates import authority_claim, fingerprint, make_request, new_key, to_pem
from iceprod_p2p.security.enrolment import (
    Invitation,
    accept_authority,
    make_one_time_secret,
    parse_invitation,
    redeem,
    secret_digest,
)
from iceprod_p2p.security.random import new_node_id, new_pilot_id, new_request_id, new_secret, new_seed
from tests.unit.security.rings import DAY_MS, NOW_MS, icecube, make_ring

KEY, OTHER = b"k" * 32, b"o" * 32
INVITATION = Invitation("icecube", "lund", "[2001:db8::1]:4410", "ab" * 32, "t" * 43)


def test_a_secret_lets_its_name_in_and_is_kept_as_a_digest() -> None:
    secret, record = make_one_time_secret("lund", now_ms=0, lifetime_ms=1_000)
    assert secret.encode() not in record.digest
    used = redeem(record, secret, name="lund", key_digest=KEY, now_ms=999)
    assert used.used_by == KEY


def test_a_repeat_with_the_same_key_is_accepted_and_another_key_is_not() -> None:
    secret, record = make_one_time_secret("lund", now_ms=0, lifetime_ms=1_000)
    used = redeem(record, secret, name="lund", key_digest=KEY, now_ms=1)
    assert redeem(used, secret, name="lund", key_digest=KEY, now_ms=2) == used
    with pytest.raises(NotAllowed, match="already used with another key"):
        redeem(used, secret, name="lund", key_digest=OTHER, now_ms=3)


def test_wrong_late_and_unknown_secrets_are_refused() -> None:
    secret, record = make_one_time_secret("lund", now_ms=0, lifetime_ms=1_000)
    for found, word, name in [
        (record, secret + "x", "lund"),
        (record, secret[:-1], "lund"),
        (record, "", "lund"),
        (record, "x" * 1_000_000, "lund"),
        (record, "\udcff", "lund"),
        (record, secret, "zeuthen"),
        (None, secret, "lund"),
    ]:
        with pytest.raises(NotAllowed, match="not valid for this name"):
            redeem(found, word, name=name, key_digest=KEY, now_ms=1)
    with pytest.raises(NotAllowed, match="has expired"):
        redeem(record, secret, name="lund", key_digest=KEY, now_ms=1_000)


def test_a_wrong_secret_for_a_known_name_sounds_as_for_an_unknown_one() -> None:
    _, record = make_one_time_secret("lund", now_ms=0, lifetime_ms=1_000)
    answers = set()
    for found in (record, None):
        with pytest.raises(NotAllowed) as refused:
            redeem(found, "guess", name="lund", key_digest=KEY, now_ms=5_000)
        answers.add(str(refused.value))
    assert len(answers) == 1


def test_an_invitation_is_one_line_and_is_read_back() -> None:
    line = str(INVITATION)
    assert "\n" not in line and " " not in line and len(line) < 300
    assert parse_invitation(line) == INVITATION
    assert parse_invitation(f"  iceprod-node join {line}\n") == INVITATION
    assert INVITATION.token not in repr(INVITATION)


def test_a_line_that_was_cut_or_changed_is_refused() -> None:
    line = str(INVITATION)
    for length in range(1, len(line)):
        with pytest.raises(BadInput):
            parse_invitation(line[:length])
    for place in range(len("iceprod-invite-1/"), len(line)):
        with pytest.raises(BadInput, match=r"cut short or changed|impossible"):
            parse_invitation(line[:place] + "~" + line[place + 1 :])


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "not an invitation"),
        ("hello", "not an invitation"),
        ("iceprod-invite-9/x", "another version"),
        ("iceprod-invite-1/" + "x" * 2_000, "at most 1000"),
        (str(Invitation("Ice", "lund", "h:1", "ab" * 32, "t" * 43)), "impossible names"),
        (str(Invitation("ice", "people", "h:1", "ab" * 32, "t" * 43)), "impossible names"),
        (str(Invitation("ice", "lund", "h 1", "ab" * 32, "t" * 43)), "not an invitation|changed"),
        (str(Invitation("ice", "lund", "h:1", "AB" * 32, "t" * 43)), "impossible names"),
        (str(Invitation("ice", "lund", "h:1", "ab" * 32, "t")), "impossible names"),
    ],
)
def test_other_lines_say_what_is_wrong(line: str, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        parse_invitation(line)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_invitation(text)
    except IceProdError as fault:
        assert fault.message


def test_a_newcomer_accepts_its_own_authority_only() -> None:
    ring, key = icecube(), new_key()
    invitation = Invitation("icecube", "lund", "h:1", fingerprint(ring.root.certificate), "t" * 43)
    request = make_request(key, authority_claim("lund", "icecube"))
    issuing = to_pem(ring.root.issue_authority(request, scope="lund", now_ms=NOW_MS))
    authority = accept_authority(
        invitation, key, root_pem=ring.root_pem, authority_pem=issuing, now_ms=NOW_MS
    )
    assert authority.scope == "lund"
    other = make_ring()
    forged = to_pem(other.root.issue_authority(request, scope="lund", now_ms=NOW_MS))
    cases = [
        ({"root_pem": other.root_pem}, "not the one of the invitation"),
        ({"authority_pem": forged}, "not made by this cluster's root"),
        ({"authority_pem": to_pem(ring.madison.certificate)}, r"not limited to lund\.icecube"),
        ({"now_ms": NOW_MS + 3_000 * DAY_MS}, "has expired"),
    ]
    for change, word in cases:
        facts = {"root_pem": ring.root_pem, "authority_pem": issuing, "now_ms": NOW_MS} | change
        with pytest.raises(NotAllowed, match=word):
            accept_authority(invitation, key, **facts)  # type: ignore[arg-type]
    with pytest.raises(NotAllowed, match="for another key"):
        accept_authority(invitation, new_key(), root_pem=ring.root_pem, authority_pem=issuing, now_ms=NOW_MS)


def test_random_names_have_their_form_and_do_not_repeat() -> None:
    assert len({new_request_id() for _ in range(1_000)}) == 1_000
    assert len({new_secret() for _ in range(100)}) == 100
    assert all(len(new_secret()) == 43 for _ in range(10))
    assert re.fullmatch(r"madison-[a-km-np-z2-9]{6}", new_node_id("madison"))
    assert len(new_node_id("m" * 63)) <= 63
    assert re.fullmatch(r"p-[a-z2-9]{10}", new_pilot_id())
    assert 0 <= new_seed() < 2**63
    with pytest.raises(BadInput):
        new_node_id("Madison")
    assert secret_digest("a") != secret_digest("b")
