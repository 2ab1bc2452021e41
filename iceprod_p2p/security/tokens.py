"""JSON web tokens of a configured issuer (WLCG common JWT profiles 1.0, SciTokens 2.0) instead of a password.

A token is accepted when its signature is by a key of the issuer (RS256 or ES256, as both profiles say), it names
this service in `aud`, and its time has come and not passed.  `any` audiences of the profiles are accepted where
`tokens.audience` names them.
"""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config_people import TokensConfig
from iceprod_p2p.base.errors import ConfigError, NotAllowed, Unavailable
from iceprod_p2p.model.identity import is_person_name
from iceprod_p2p.security.authenticators import Login, highest_role, roles_of
from iceprod_p2p.security.keyfiles import read_public

TOKEN_BYTES_MAX: Final = 16 * 1024
KEYS_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 64
KEYS_KEPT_S: Final = 600.0  # The WLCG profile lets issuers rotate keys over hours.
KEYS_AGAIN_S: Final = 30.0  # A token with an unknown key makes us ask again, but not at every token.
SKEW_S: Final = 60
_ALGORITHMS: Final = ("RS256", "ES256")
_DISCOVERY: Final = "/.well-known/openid-configuration"


class TokenIssuer:
    """Checks tokens; blocks on the network when keys are fetched, so call it in a worker thread."""

    def __init__(self, config: TokensConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._roles = roles_of(config.roles, "tokens.roles")
        self._lock = threading.Lock()
        self._keys: dict[str, Any] = {}
        self._fetched_s: float | None = None

    def authenticate(self, token: str) -> Login:
        """Return whose token it is; NotAllowed says what is wrong with it, Unavailable when the issuer's keys
        cannot be had.
        """
        if len(token) > TOKEN_BYTES_MAX:
            raise _refused(f"it is longer than {TOKEN_BYTES_MAX} bytes")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in _ALGORITHMS:
                raise _refused(f"it is not signed by {' or '.join(_ALGORITHMS)}")
            key = self._key(str(header.get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                # The key says which algorithm it is for, whatever the token's header says.
                algorithms=["RS256" if isinstance(key, RSAPublicKey) else "ES256"],
                issuer=self._config.issuer,
                audience=self._config.audience,
                leeway=SKEW_S,
                options={"require": ["exp", "iss", "aud", self._config.name_claim]},
            )
        except jwt.PyJWTError as fault:
            raise _refused(str(fault)[:200]) from fault
        except (ValueError, TypeError, RecursionError, OverflowError) as fault:  # PyJWT lets some through.
            raise _refused("it cannot be read") from fault
        return self._login(claims)

    def _login(self, claims: dict[str, Any]) -> Login:
        scopes = str(claims.get("scope", "")).split()
        if self._config.scope and self._config.scope not in scopes:
            raise _refused(f"its scope does not hold {self._config.scope!r}")
        said = str(claims[self._config.name_claim])
        name = self._config.names.get(said, said)
        if not is_person_name(name):
            raise _refused(
                f"its {self._config.name_claim} {said[:80]!r} cannot name a person",
                remedy="the site's operator can give it a name in [tokens.names]",
            )
        given = claims.get("wlcg.groups", claims.get("groups", ()))
        listed = [str(group).lstrip("/") for group in given] if isinstance(given, list) else []
        roles = {group.lstrip("/"): role for group, role in self._roles.items()}
        groups = tuple(sorted({group for group in listed if is_person_name(group)}))
        return Login(name, groups, highest_role(tuple(listed), roles), role_is_given=bool(roles))

    def _key(self, key_id: str) -> Any:
        with self._lock:
            age_s = None if self._fetched_s is None else self._clock.monotonic_s() - self._fetched_s
            stale = age_s is None or age_s > (KEYS_KEPT_S if key_id in self._keys else KEYS_AGAIN_S)
            if stale:
                self._keys = _key_set(self._key_document())
                self._fetched_s = self._clock.monotonic_s()
            if not key_id and len(self._keys) == 1:
                return next(iter(self._keys.values()))
            if key_id not in self._keys:
                raise _refused(f"the issuer has no key {key_id[:80]!r}")
            return self._keys[key_id]

    def _key_document(self) -> bytes:
        if self._config.keys_file:
            return read_public(Path(self._config.keys_file).expanduser())
        discovered = _document(self._get(self._config.issuer.rstrip("/") + _DISCOVERY))
        if discovered.get("issuer") != self._config.issuer:
            raise Unavailable(
                f"{self._config.issuer} says that it is {str(discovered.get('issuer'))[:200]!r}"
            )
        return self._get(str(discovered.get("jwks_uri", "")))

    def _get(self, url: str) -> bytes:
        if not url.startswith("https://"):
            raise Unavailable(f"the issuer's keys are at {url[:200]!r}, which is no https address")
        context = ssl.create_default_context(cafile=self._config.ca_file or None)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects())
        try:
            with opener.open(url, timeout=self._config.timeout_s) as answer:
                content: bytes = answer.read(KEYS_BYTES_MAX + 1)
        except (OSError, ValueError, urllib.error.URLError) as fault:
            raise Unavailable(
                f"the token issuer cannot be asked for its keys: {str(fault)[:200]}", remedy="try again later"
            ) from fault
        if len(content) > KEYS_BYTES_MAX:
            raise Unavailable(f"the answer of {url[:200]} is longer than {KEYS_BYTES_MAX} bytes")
        return content


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An issuer that sends its callers elsewhere could send them anywhere."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        """Follow none; the redirection becomes an error."""
        return


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise Unavailable("the token issuer's answer is no JSON") from fault
    if not isinstance(document, dict):
        raise Unavailable("the token issuer's answer is no JSON object")
    return document


def _key_set(content: bytes) -> dict[str, Any]:
    listed = _document(content).get("keys")
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise Unavailable(f"the token issuer's answer is no set of at most {KEYS_MAX} keys")
    keys: dict[str, Any] = {}
    for entry in listed:
        if isinstance(entry, dict) and entry.get("kty") in ("RSA", "EC") and entry.get("use") != "enc":
            try:
                keys[str(entry.get("kid", ""))] = jwt.PyJWK(entry).key
            except jwt.PyJWTError:
                continue  # A key of a kind that we do not accept anyway.
    if not keys:
        raise ConfigError("the token issuer has no RSA or EC key", remedy="check tokens.issuer or keys_file")
    return keys


def _refused(why: str, *, remedy: str = "get a new token, or log in with a password") -> NotAllowed:
    return NotAllowed(f"the token is not accepted: {why}", remedy=remedy)
