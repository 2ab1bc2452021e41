"""JSON web tokens: those of the configured issuer for us and now are accepted, and no others."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from iceprod_p2p.base.config_people import TokensConfig
from iceprod_p2p.base.errors import IceProdError, NotAllowed, Unavailable
from iceprod_p2p.model.person import Role
from iceprod_p2p.security.authenticators import Login
from iceprod_p2p.security.tokens import KEYS_AGAIN_S, KEYS_KEPT_S, TokenIssuer
from tests.people.issuer import AUDIENCE, Issuer, new_ec_key, public_key


class Hands:
    """A clock that is moved by hand; the wall clock is the real one, as in the tokens."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(time.time() * 1_000)


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    running = Issuer(tmp_path)
    yield running
    running.close()


def accepted(issuer: Issuer, clock: Any = None, **given: Any) -> TokenIssuer:
    values: dict[str, Any] = {
        "issuer": issuer.url,
        "audience": AUDIENCE,
        "keys_file": "",
        "ca_file": str(issuer.ca_file),
        "scope": "iceprod",
        "name_claim": "sub",
        "timeout_s": 30.0,
        "names": {"7d9f-uuid": "mary"},
        "roles": {"simprod": "production", "/icecube/ops": "operator"},
    }
    return TokenIssuer(TokensConfig(**{**values, **given}), clock or Hands())


def test_a_token_of_the_issuer_gives_name_groups_and_the_highest_role(issuer: Issuer) -> None:
    asked = accepted(issuer)
    assert asked.authenticate(issuer.token()) == Login(
        "paul", ("simprod",), Role.OPERATOR, role_is_given=True
    )
    assert asked.authenticate(issuer.token(sub="7d9f-uuid")).name == "mary"
    issuer.keys["ec-1"] = new_ec_key()
    scitoken = {"wlcg.ver": None, "ver": "scitoken:2.0", "wlcg.groups": None, "scope": "iceprod read:/"}
    assert accepted(issuer).authenticate(issuer.token(key_id="ec-1", **scitoken)).role is None
    assert accepted(issuer, roles={}).authenticate(issuer.token()).role_is_given is False
    many = issuer.token(aud=["https://elsewhere", AUDIENCE])
    assert asked.authenticate(many).name == "paul"


def test_every_other_token_is_refused_with_its_reason(issuer: Issuer) -> None:
    now, key = int(time.time()), issuer.keys["rsa-1"]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    good = issuer.token()
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "mary"}).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    confused = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"rsa-1"}').rstrip(b"=").decode()
    import hashlib
    import hmac

    forged = hmac.digest(public, f"{confused}.{body}".encode(), hashlib.sha256)
    refused = {
        "": "segments",
        "x": "segments",
        "." * 20: "",
        "é" * 50: "",
        "x" * 20_000: "longer than",
        f"{head}.{other}.{signature}": "Signature verification failed",
        f"{none}.{body}.": "not signed by",
        f"{confused}.{body}.{base64.urlsafe_b64encode(forged).rstrip(b'=').decode()}": "not signed by",
        issuer.token(key=rsa.generate_private_key(65537, 2048)): "Signature verification failed",
        issuer.token(key=new_ec_key()): "",
        issuer.token(key_id="rsa-9", key=key): "no key 'rsa-9'",
        issuer.token(exp=now - 120): "expired",
        issuer.token(exp=None): "exp",
        issuer.token(nbf=now + 600): "not yet valid",
        issuer.token(aud="https://elsewhere"): "udience",
        issuer.token(aud=None): "aud",
        issuer.token(iss="https://evil.example"): "issuer",
        issuer.token(scope="openid"): "scope",
        issuer.token(sub=None): "sub",
        issuer.token(sub="../../etc"): "cannot name a person",
        issuer.token(sub="x" * 64): "cannot name a person",
    }
    asked = accepted(issuer)
    for token, why in refused.items():
        with pytest.raises(NotAllowed, match="the token is not accepted") as refusal:
            asked.authenticate(token)
        assert why in refusal.value.message, (token[:60], refusal.value.message)
        assert len(refusal.value.message) < 400
    assert asked.authenticate(good).name == "paul"


def test_every_changed_letter_of_a_token_is_refused(issuer: Issuer) -> None:
    good = issuer.token()
    asked = accepted(issuer)
    body_end = good.rindex(".")
    for place in range(0, body_end, 7):
        letter = "A" if good[place] != "A" else "B"
        with pytest.raises((NotAllowed, Unavailable)):
            asked.authenticate(good[:place] + letter + good[place + 1 :])


def test_keys_are_fetched_seldom_and_a_new_one_is_found(issuer: Issuer) -> None:
    clock = Hands()
    asked = accepted(issuer, clock)
    for _ in range(5):
        asked.authenticate(issuer.token())
        with pytest.raises(NotAllowed):
            asked.authenticate(issuer.token(key_id="unknown", key=new_ec_key()))
    assert issuer.asked.count("/keys") == 1
    issuer.keys["ec-2"] = new_ec_key()
    clock.now_s += KEYS_AGAIN_S + 1
    assert asked.authenticate(issuer.token(key_id="ec-2")).name == "paul"
    del issuer.keys["rsa-1"], issuer.asked[:]
    clock.now_s += KEYS_KEPT_S + 1
    with pytest.raises(NotAllowed, match="no key 'rsa-1'"):
        asked.authenticate(issuer.token(key_id="rsa-1", key=rsa.generate_private_key(65537, 2048)))


def test_an_issuer_that_answers_wrongly_is_unavailable_and_never_followed(
    issuer: Issuer, tmp_path: Path
) -> None:
    token = issuer.token()
    discovery = "/.well-known/openid-configuration"
    elsewhere = json.dumps({"issuer": "https://evil.example", "jwks_uri": f"{issuer.url}/keys"})
    plain = json.dumps({"issuer": issuer.url, "jwks_uri": "http://localhost:1/keys"})
    local = json.dumps({"issuer": issuer.url, "jwks_uri": "file:///etc/passwd"})
    for path, content in (
        (discovery, elsewhere.encode()),
        (discovery, plain.encode()),
        (discovery, local.encode()),
        (discovery, b"[" * 100_000),
        (discovery, b"no json"),
        (discovery, b"->" + f"{issuer.url}/again".encode()),
        ("/keys", b"[]"),
        ("/keys", b'{"keys": []}'),
        ("/keys", b'{"keys": [{"kty": "RSA", "n": "!", "e": "!"}, 7, {"kty": "oct", "k": "c2VjcmV0"}]}'),
        ("/keys", b" " * 1_000_000),
        ("/keys", b"->http://169.254.169.254/latest"),
    ):
        issuer.documents = {path: content}
        with pytest.raises(IceProdError) as failure:
            accepted(issuer).authenticate(token)
        assert not isinstance(failure.value, NotAllowed), content[:60]
    issuer.documents = {}
    with pytest.raises(Unavailable):
        accepted(issuer, ca_file="").authenticate(token)
    issuer.close()
    with pytest.raises(Unavailable, match="cannot be asked for its keys"):
        accepted(issuer).authenticate(token)


def test_keys_may_be_a_file_so_that_nothing_is_fetched(issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [public_key("rsa-1", issuer.keys["rsa-1"])]}))
    path.chmod(0o644)
    assert accepted(issuer, keys_file=str(path)).authenticate(issuer.token()).name == "paul"
    assert issuer.asked == []
