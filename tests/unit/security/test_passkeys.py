"""Passkeys: the golden bytes, one distinct refusal per reason, and no change of a single bit goes unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.base.errors import ConfigError, NotAllowed
from iceprod_p2p.security.passkeys import (
    NOT_BEFORE_SLACK_MS,
    PASSKEY_BYTES_MAX,
    Claims,
    Operation,
    PasskeyFault,
    PasskeyKey,
    PasskeyRefused,
    PasskeySigner,
    SignedHere,
    new_signing_key,
    signing_key_from_bytes,
    signing_key_to_bytes,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = PasskeySigner(KEY, key_id="madison-abc", cluster="icecube", site="madison")
KEYS = {"madison-abc": PasskeyKey("madison", SIGNER.public_key)}
HOLDER = bytes(range(32, 64))
ISSUED_MS, LIFE_MS = 1_000_000, 3_600_000
TASK = (12, 5, 3, 1)

# A change of these bytes makes every passkey in flight worthless: it needs a new version.
GOLDEN = bytes.fromhex(
    "7bbbc35b00a261e80af03420dfcd95fd5c43f767b9ae8914edc3e02541d61631696b4e390056626cb3b718e37244d8a9"
    "04d647d2768ef269b340af9f7a30660edc001001ab6d616469736f6e2d616263a769636563756265a47461736b0c0503"
    "01a76d616469736f6ea5702d616263c420202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e"
    "3f93a56665746368a67265706f7274a573746f7265ce000f4240ce000e57e0ce004630c0c41000000000000000000000"
    "000000000000"
)


def make(**changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "dataset": 12,
        "job": 5,
        "task": 3,
        "attempt": 1,
        "pilot": "p-abc",
        "holder": HOLDER,
        "passkey_id": bytes(16),
        "now_ms": ISSUED_MS,
        "lifetime_ms": LIFE_MS,
    }
    return SIGNER.sign(**(facts | changes))


def check(passkey: bytes, **changes: Any) -> Claims:
    facts: dict[str, Any] = {
        "keys": KEYS,
        "cluster": "icecube",
        "now_ms": ISSUED_MS + 1,
        "operation": Operation.REPORT,
        "holder": HOLDER,
        "task": TASK,
        "site": "madison",
    }
    return verify(passkey, **(facts | changes))


def forge(change: Callable[[list[Any]], None], *, key: Ed25519PrivateKey = KEY) -> bytes:
    """A well signed passkey whose claims were changed by whoever holds `key`."""
    values = msgspec.msgpack.decode(make()[64:])
    change(values)
    payload = msgspec.msgpack.encode(values)
    return key.sign(b"iceprod passkey 1\x00" + payload) + payload


def set_(place: int, value: Any) -> Callable[[list[Any]], None]:
    def change(values: list[Any]) -> None:
        values[place] = value

    return change


def test_the_bytes_are_the_golden_ones() -> None:
    assert make() == GOLDEN
    claims = check(GOLDEN)
    assert (claims.task_ref, claims.site, claims.pilot, claims.key_id) == (
        TASK,
        "madison",
        "p-abc",
        "madison-abc",
    )
    assert claims.operations == (Operation.FETCH, Operation.REPORT, Operation.STORE)
    assert (claims.issued_ms, claims.expires_ms) == (ISSUED_MS, ISSUED_MS + LIFE_MS)


def test_every_flipped_bit_is_refused() -> None:
    for place in range(len(GOLDEN) * 8):
        changed = bytearray(GOLDEN)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(PasskeyRefused):
            check(bytes(changed))


def test_every_prefix_and_every_addition_is_refused() -> None:
    for length in range(len(GOLDEN)):
        with pytest.raises(PasskeyRefused):
            check(GOLDEN[:length])
    for more in (b"\x00", b"\xc0", GOLDEN):
        with pytest.raises(PasskeyRefused):
            check(GOLDEN + more)


FIELD = 2**255 - 19
SMALL_ORDER = tuple(
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
)


@pytest.mark.parametrize(
    "weak", [*SMALL_ORDER, FIELD.to_bytes(32, "little"), (FIELD + 1).to_bytes(32, "little")]
)
def test_a_key_for_which_anybody_can_sign_proves_nothing(weak: bytes) -> None:
    keys = {"madison-abc": PasskeyKey("madison", weak)}
    for attempt in range(64):  # A signature of zeros fits one in two to eight messages under such a key.
        values = msgspec.msgpack.decode(make()[64:])
        values[-1] = bytes(15) + bytes([attempt])
        for point in (bytes(32), weak):
            with pytest.raises(PasskeyRefused) as refused:
                check(point + bytes(32) + msgspec.msgpack.encode(values), keys=keys)
            assert refused.value.fault is PasskeyFault.BAD_SIGNATURE


@given(st.binary(max_size=600))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(PasskeyRefused):
        check(noise)
    with pytest.raises(PasskeyRefused):
        check(GOLDEN[:64] + noise)


def test_it_holds_from_a_little_before_its_issue_until_its_expiry() -> None:
    for now_ms in (ISSUED_MS - NOT_BEFORE_SLACK_MS, ISSUED_MS, ISSUED_MS + LIFE_MS - 1):
        assert check(make(), now_ms=now_ms).attempt == 1


def long_integer() -> bytes:
    """A well signed passkey whose dataset, 12, takes two bytes instead of one."""
    payload = make()[64:].replace(b"\xa4task\x0c", b"\xa4task\xcc\x0c")
    return KEY.sign(b"iceprod passkey 1\x00" + payload) + payload


STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))

REFUSALS: list[tuple[PasskeyFault, bytes, dict[str, Any]]] = [
    (PasskeyFault.TOO_LONG, GOLDEN + bytes(PASSKEY_BYTES_MAX), {}),
    (PasskeyFault.MALFORMED, b"", {}),
    (PasskeyFault.MALFORMED, GOLDEN[:100], {}),
    (PasskeyFault.MALFORMED, forge(set_(4, "12")), {}),
    (PasskeyFault.MALFORMED, forge(set_(4, -1)), {}),
    (PasskeyFault.MALFORMED, forge(set_(4, 2**60)), {}),
    (PasskeyFault.MALFORMED, forge(set_(4, True)), {}),
    (PasskeyFault.MALFORMED, forge(set_(10, HOLDER[:31])), {}),
    (PasskeyFault.MALFORMED, forge(set_(11, [])), {}),
    (PasskeyFault.MALFORMED, forge(set_(11, ["everything"])), {}),
    (PasskeyFault.MALFORMED, forge(lambda values: values.pop()), {}),
    (PasskeyFault.MALFORMED, forge(set_(4, 12.0)), {}),
    (PasskeyFault.NOT_CANONICAL, long_integer(), {}),
    (PasskeyFault.NOT_CANONICAL, forge(set_(11, ["report", "fetch"])), {}),
    (PasskeyFault.NOT_CANONICAL, forge(set_(11, ["fetch", "fetch"])), {}),
    (PasskeyFault.MALFORMED, forge(lambda values: values.append(1)), {}),
    (PasskeyFault.NOT_CANONICAL, forge(set_(14, ISSUED_MS)), {}),
    (PasskeyFault.WRONG_VERSION, forge(set_(0, 2)), {}),
    (PasskeyFault.UNKNOWN_KEY, make(), {"keys": {}}),
    (PasskeyFault.BAD_SIGNATURE, forge(lambda values: None, key=STRANGER), {}),
    (PasskeyFault.BAD_SIGNATURE, bytes(64) + GOLDEN[64:], {}),
    (PasskeyFault.WRONG_CLUSTER, make(), {"cluster": "gen2"}),
    (PasskeyFault.WRONG_ISSUER, forge(set_(8, "zeuthen")), {"site": "zeuthen"}),
    (PasskeyFault.WRONG_PURPOSE, forge(set_(3, "login")), {}),
    (PasskeyFault.NOT_GRANTED, make(operations=(Operation.FETCH,)), {}),
    (PasskeyFault.NOT_YET_VALID, make(), {"now_ms": ISSUED_MS - NOT_BEFORE_SLACK_MS - 1}),
    (PasskeyFault.EXPIRED, make(), {"now_ms": ISSUED_MS + LIFE_MS}),
    (PasskeyFault.WRONG_HOLDER, make(), {"holder": bytes(32)}),
    (PasskeyFault.WRONG_TASK, make(), {"task": (12, 5, 3, 2)}),
    (PasskeyFault.WRONG_TASK, make(), {"task": (12, 5, 4, 1)}),
    (PasskeyFault.WRONG_SITE, make(), {"site": "zeuthen"}),
]


@pytest.mark.parametrize(("fault", "passkey", "changes"), REFUSALS)
def test_each_reason_is_a_distinct_refusal(
    fault: PasskeyFault, passkey: bytes, changes: dict[str, Any]
) -> None:
    with pytest.raises(PasskeyRefused) as refused:
        check(passkey, **changes)
    assert refused.value.fault is fault
    assert isinstance(refused.value, NotAllowed)
    assert refused.value.remedy


def test_every_reason_has_been_shown() -> None:
    assert {fault for fault, _, _ in REFUSALS} == set(PasskeyFault)


def test_only_the_signature_of_ones_own_passkeys_is_taken_on_trust() -> None:
    own, passkey = SignedHere(), make()
    another = new_signing_key().public_key().public_bytes_raw()
    unsigned = bytes(64) + passkey[64:]
    own.add(unsigned, SIGNER.public_key)
    assert check(unsigned, signed_here=own).task_ref == TASK
    for changes, fault in (
        ({"now_ms": ISSUED_MS + LIFE_MS}, PasskeyFault.EXPIRED),
        ({"holder": bytes(32)}, PasskeyFault.WRONG_HOLDER),
        ({"task": (12, 5, 3, 2)}, PasskeyFault.WRONG_TASK),
        ({"keys": {}}, PasskeyFault.UNKNOWN_KEY),
        # A key that took the place of the one that signed: what that one signed is worthless.
        ({"keys": {"madison-abc": PasskeyKey("madison", another)}}, PasskeyFault.BAD_SIGNATURE),
    ):
        with pytest.raises(PasskeyRefused) as refused:
            check(unsigned, signed_here=own, **changes)
        assert refused.value.fault is fault
    with pytest.raises(PasskeyRefused) as refused:
        check(unsigned[:-1] + bytes([unsigned[-1] ^ 1]), signed_here=own)
    assert refused.value.fault is PasskeyFault.BAD_SIGNATURE


def test_the_oldest_of_ones_own_passkeys_are_forgotten() -> None:
    own = SignedHere(most=2)
    for passkey in (b"a", b"b", b"c"):
        own.add(passkey, b"key")
    assert [own.has(passkey, b"key") for passkey in (b"a", b"b", b"c")] == [False, True, True]
    assert not own.has(b"c", b"another key")


def test_the_longest_names_fit_and_longer_ones_are_not_signed() -> None:
    longest = "x" * 63
    signer = PasskeySigner(KEY, key_id=longest, cluster=longest, site=longest)
    big = 2**53
    passkey = signer.sign(
        dataset=big,
        job=big,
        task=big,
        attempt=big,
        pilot=longest,
        holder=HOLDER,
        passkey_id=bytes(16),
        now_ms=2**52,
        lifetime_ms=LIFE_MS,
    )
    assert len(passkey) <= PASSKEY_BYTES_MAX
    for changes in (
        {"pilot": "x" * 64},
        {"pilot": ""},
        {"lifetime_ms": 0},
        {"holder": b""},
        {"operations": ()},
    ):
        with pytest.raises(ValueError, match="cannot sign"):
            make(**changes)


def test_signing_keys_survive_their_file() -> None:
    key = new_signing_key()
    again = signing_key_from_bytes(signing_key_to_bytes(key), name="passkey.key")
    assert again.public_key().public_bytes_raw() == key.public_key().public_bytes_raw()
    with pytest.raises(ConfigError, match=r"passkey\.key"):
        signing_key_from_bytes(b"short", name="passkey.key")
