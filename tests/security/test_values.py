"""Values that are no values: commands at the limits of their fields, statistics that are no numbers, sums that
collide, passkeys and tokens in pieces, messages that fold in on themselves.

MD5 collisions are Wang's and Stevens' published pairs; Adler-32 ones are made here.  JSON web tokens: RFC 8725.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import random
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from fuzz import ledger, wire
from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.config_people import TokensConfig
from iceprod_p2p.base.errors import BadInput, IntegrityError, NotAllowed
from iceprod_p2p.security.checksums import FileSum, check_file, check_sums
from iceprod_p2p.security.passkeys import (
    Operation,
    PasskeyKey,
    PasskeyRefused,
    PasskeySigner,
    new_signing_key,
    verify,
)
from iceprod_p2p.security.tokens import TokenIssuer
from iceprod_p2p.site.site_calls import BYTES_MAX, _unpacked
from iceprod_p2p.wire import translate
from iceprod_p2p.wire.pb import common_pb2
from tests.security.cost import bounded


@pytest.mark.parametrize("seed", range(12))
def test_any_command_that_a_member_could_write_has_an_outcome(seed: int) -> None:
    ledger.story(seed)


@pytest.mark.parametrize("number", range(len(ledger.COMMANDS)), ids=lambda n: ledger.COMMANDS[n].__name__)
def test_each_command_at_the_limits_of_its_fields_has_an_outcome(number: int) -> None:
    draw, held = random.Random(number), ledger.ground()
    for _ in range(25):
        held.raw(ledger.entry_of(draw, command=number))


@pytest.mark.parametrize("seed", range(30))
def test_what_calls_hold_is_read_or_refused(seed: int) -> None:
    wire.call(seed)


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["energy", ""])
def test_a_statistic_that_is_no_number_is_refused(name: str, value: float) -> None:
    with pytest.raises(BadInput, match="cannot be summed"):
        translate.statistics_from({"good": 1.0, name: value})


@pytest.mark.parametrize("name", ["x" * 129, "a\nb", "\x1b[2J", "\u202e", "\x00", "\x9b2J"])
def test_a_statistic_cannot_bear_such_a_name(name: str) -> None:
    with pytest.raises(BadInput):
        translate.statistics_from({name: 1.0})


def test_extreme_statistics_are_summed_without_an_infinity() -> None:
    values = {"large": 1.7e308, "larger": 1.7e308, "small": 5e-324, "zero": -0.0}
    assert translate.statistics_from(values) == values
    with pytest.raises(BadInput, match="at most"):
        translate.statistics_from({f"s{number}": 1.0 for number in range(1_000)})


@pytest.mark.parametrize("field", ["wall_ms", "cpu_ms", "memory_peak_mib", "disk_peak_mib"])
def test_usage_beyond_anything_real_is_refused(field: str) -> None:
    with pytest.raises(BadInput, match="more than anything real"):
        translate.usage_from(common_pb2.Usage(**{field: 2**64 - 1}))


# Two messages with one MD5: X. Wang and H. Yu, "How to Break MD5 and Other Hash Functions", 2005.
ONE = bytes.fromhex(
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f89"
    "55ad340609f4b30283e488832571415a085125e8f7cdc99fd91dbdf280373c5b"
    "d8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0"
    "e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70"
)
OTHER = bytes(byte ^ 0x80 if at in (19, 45, 59, 83, 109, 123) else byte for at, byte in enumerate(ONE))


def adler_twins() -> tuple[bytes, bytes]:
    """Adler-32 adds up: moving one up, two down, one up leaves both of its sums as they were."""
    return b"abcabcabc" + bytes([10, 10, 10]), b"abcabcabc" + bytes([11, 8, 11])


@pytest.mark.parametrize(("name", "twins"), [("md5", (ONE, OTHER)), ("adler32", adler_twins())])
def test_a_file_with_a_colliding_sum_is_not_the_file(
    name: str, twins: tuple[bytes, bytes], tmp_path: Path
) -> None:
    def weak(data: bytes) -> str:
        return f"{zlib.adler32(data):08x}" if name == "adler32" else hashlib.md5(data).hexdigest()

    good, evil = twins
    assert good != evil and len(good) == len(evil) and weak(good) == weak(evil), "they collide"
    path = tmp_path / "file"
    path.write_bytes(evil)
    expected = FileSum(len(good), hashlib.sha256(good).hexdigest(), {name: weak(good)})
    with pytest.raises(IntegrityError, match="SHA-256"):
        check_file(path, expected)
    path.write_bytes(good)
    check_file(path, expected)
    with pytest.raises(BadInput, match="needs a SHA-256"):
        check_sums({name: weak(good)})


@pytest.mark.parametrize(
    "sums",
    [
        {},
        {"md5": "0" * 32},
        {"sha256": ""},
        {"sha256": "0" * 63},
        {"sha256": "g" * 64},
        {"sha256": "٠" * 64},
        {"sha256": "0" * 64 + "\n"},
        {"sha256": "0" * 64, "md5": "0" * 64},
        {"sha256": "0" * 64, "crc32": "0" * 8},
        {"sha256": "0" * 64, "x" * 5_000: "0"},
        {"SHA256": "0" * 64},
    ],
    ids=lambda sums: ascii(sums)[:40],
)
def test_sums_from_outside_are_read_strictly(sums: dict[str, str]) -> None:
    with pytest.raises(BadInput) as refusal:
        check_sums(sums)
    assert len(str(refusal.value)) < 500


SIGNER = PasskeySigner(new_signing_key(), key_id="n0", cluster="ice", site="madison")
KEYS = {"n0": PasskeyKey("madison", SIGNER.public_key)}
DAMAGED_PASSKEYS = {
    "nothing": b"",
    "a signature alone": bytes(64),
    "zeros": bytes(512),
    "too long": bytes(513),
    "a megabyte": bytes(1 << 20),
    "deep": bytes(64) + b"\x91" * 448,
    "an array that is too long": bytes(64) + b"\xdd\xff\xff\xff\xff",
    "bytes that are too long": bytes(64) + b"\xc6\xff\xff\xff\xff",
    "a map": bytes(64) + msgspec.msgpack.encode({"version": 1}),
    "text that is no text": bytes(64) + b"\x9f\x01\xa4\xff\xfe\xff\xfe",
    "another version": bytes(64) + msgspec.msgpack.encode([2, "n0"]),
    "a negative number": bytes(64) + msgspec.msgpack.encode([-1] * 16),
    "a fraction": bytes(64) + msgspec.msgpack.encode([1.5] * 16),
    "a number beyond 64 bits": bytes(64) + b"\x9f" + b"\xcf" + b"\xff" * 8,
    "JSON": b'{"alg": "none"}',
    "a token": b"eyJhbGciOiJub25lIn0.e30.",
}


@pytest.mark.parametrize("name", DAMAGED_PASSKEYS)
def test_a_passkey_that_is_none_is_one_refusal(name: str) -> None:
    with bounded(cpu_s=0.5, memory_mib=4), pytest.raises(PasskeyRefused) as refusal:
        verify(
            DAMAGED_PASSKEYS[name],
            KEYS,
            cluster="ice",
            now_ms=1,
            operation=Operation.REPORT,
            holder=bytes(32),
        )
    assert refusal.value.fault and len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * (BYTES_MAX - 1),
        b"\x81" * 1_000,
        b"\x81\x90\x01",
        b"\xc1",
        b"",
        b"\x01\x02",
        b"\xa2\xff\xfe",
        bytes(BYTES_MAX + 1),
        b"\x82\x01\x01\x01\x02",
    ],
    ids=lambda content: f"{content[:6].hex()} {len(content)}",
)
def test_an_argument_that_folds_in_on_itself_is_refused(content: bytes) -> None:
    with bounded(cpu_s=0.5, memory_mib=16), pytest.raises(BadInput):
        _unpacked(content)


KEY = generate_private_key(65_537, 2_048)


def b64(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def issuer(directory: Path) -> TokenIssuer:
    keys = directory / "keys.json"
    keys.write_text('{"keys": [' + RSAAlgorithm.to_jwk(KEY.public_key()) + "]}")
    fields = {"ca_file": "", "scope": "", "name_claim": "sub", "timeout_s": 1.0, "names": {}, "roles": {}}
    config = TokensConfig(issuer="https://i.example", audience="us", keys_file=str(keys), **fields)  # type: ignore[arg-type]
    return TokenIssuer(config, ManualClock())


CLAIMS = {"iss": "https://i.example", "aud": "us", "exp": 2**40, "sub": "ada"}


def with_public_key_as_secret() -> str:
    head = f"{b64({'alg': 'HS256', 'typ': 'JWT'})}.{b64(CLAIMS)}"
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return f"{head}.{b64(hmac.new(pem, head.encode(), hashlib.sha256).digest())}"


DEEP_FIELD = b'{"alg":"RS256","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
OWN_KEY = RSAAlgorithm.to_jwk(KEY.public_key())
TOKENS = {
    "nothing": "",
    "dots": "...",
    "dots without end": "." * 10_000,
    "no signature wanted": f"{b64({'alg': 'none'})}.{b64(CLAIMS)}.",
    "none in capitals": f"{b64({'alg': 'nOnE'})}.{b64(CLAIMS)}.",
    "a symmetric signature by the public key": with_public_key_as_secret(),
    "its own key": f"{b64({'alg': 'RS256', 'jwk': json.loads(OWN_KEY)})}.{b64(CLAIMS)}.AAAA",
    "a key elsewhere": f"{b64({'alg': 'RS256', 'jku': 'http://169.254.169.254/'})}.{b64(CLAIMS)}.AAAA",
    "a key in a file": f"{b64({'alg': 'RS256', 'kid': '../../../dev/zero'})}.{b64(CLAIMS)}.AAAA",
    "a key by a query": f"{b64({'alg': 'RS256', 'kid': chr(39) + ' OR 1=1 --'})}.{b64(CLAIMS)}.AAAA",
    "an algorithm that is a list": f"{b64({'alg': ['RS256']})}.{b64(CLAIMS)}.AAAA",
    "an algorithm that is a number": f"{b64({'alg': 1})}.{b64(CLAIMS)}.AAAA",
    "a header that is a list": f"{b64(b'[]')}.{b64(CLAIMS)}.AAAA",
    "a header that is a number": f"{b64(b'1' * 5_000)}.{b64(CLAIMS)}.AAAA",
    "a deep header": f"{b64(b'[' * 8_000)}.{b64(CLAIMS)}.AAAA",
    "a deep header field": f"{b64(DEEP_FIELD)}.{b64(CLAIMS)}.AAAA",
    "a critical word": f"{b64({'alg': 'RS256', 'crit': ['x'], 'x': 1})}.{b64(CLAIMS)}.AAAA",
    "text that is no text": f"{b64(bytes([255] * 50))}.{b64(CLAIMS)}.AAAA",
    "letters beyond ASCII": "é雪.é.é",
    "a megabyte": "a" * (1 << 20),
    "a NUL": "\0.\0.\0",
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_is_none_is_one_refusal(name: str, tmp_path: Path) -> None:
    asked = issuer(tmp_path)
    with bounded(cpu_s=0.5, memory_mib=16), pytest.raises(NotAllowed) as refusal:
        asked.authenticate(TOKENS[name])
    assert len(str(refusal.value)) < 500
