"""Who a person is, by name and password: accounts of one node's own file, behind an interface for
directories.

Passwords are kept as scrypt digests (RFC 7914; N = 2^15, r = 8, p = 1: 32 MiB and about a tenth of a second
each, so callers bound how many run at once).  An unknown name costs the same work as a wrong password and
sounds the same.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from iceprod_p2p.base.errors import BadInput, ConfigError, NotAllowed
from iceprod_p2p.model.identity import is_person_name
from iceprod_p2p.model.person import ROLE_RANK, Role
from iceprod_p2p.security.keyfiles import read_secret, write_secret
from iceprod_p2p.security.random import new_salt

PASSWORD_LENGTH_MIN: Final = 10
PASSWORD_BYTES_MAX: Final = 256  # Bounds the work before the digest.
_COST_LOG2: Final = 15
_COST_LOG2_MAX: Final = 18  # A file that asks for more would take gigabytes at each login.
_BLOCK: Final = 8
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Login:
    """A person whose password or token was right, with the groups and the role that come with it.

    With `role_is_given`, whoever vouched also says who has which role: None then means that this person has
    none there.
    """

    name: str
    groups: tuple[str, ...] = ()
    role: Role | None = None
    role_is_given: bool = False


class Authenticator(Protocol):
    """Checks passwords: a file here, a directory server elsewhere."""

    def authenticate(self, name: str, password: str) -> Login:
        """Return who it is; NotAllowed, without saying which was wrong, for a wrong name or password."""
        ...


class LocalAccounts:
    """Accounts in one 0600 file, a line ``NAME scrypt:COST:SALT:DIGEST [GROUP,…]`` each.

    The file is read at every question, so a change needs no restart.  Blocks on disk and processor: call it
    in a worker thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # Two changes at once would lose one of them.

    def authenticate(self, name: str, password: str) -> Login:
        """Return the login; NotAllowed for a wrong name or password, ConfigError when the file is damaged."""
        line = self._read().get(name)
        cost, salt, expected = _parse_digest(line[0], self._path) if line else (_COST_LOG2, bytes(16), b"")
        content = password.encode("utf-8", "replace")[: PASSWORD_BYTES_MAX + 1]
        found = _digest(content[:PASSWORD_BYTES_MAX], salt, cost)
        acceptable = 0 < len(content) <= PASSWORD_BYTES_MAX
        if not hmac.compare_digest(found, expected) or line is None or not acceptable:
            raise wrong_password()
        return Login(name, line[1])

    def set_password(self, name: str, password: str, *, groups: tuple[str, ...] | None = None) -> None:
        """Make or change an account; groups stay as they are unless given.  BadInput for unfit names or
        passwords.
        """
        for word in (name, *(groups or ())):
            if not is_person_name(word):
                raise BadInput(
                    f"{word!r} cannot name a person or group", remedy="use letters, digits and '_.@-'"
                )
        if len(password) < PASSWORD_LENGTH_MIN or len(password.encode()) > PASSWORD_BYTES_MAX:
            raise BadInput(
                f"a password has at least {PASSWORD_LENGTH_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes"
            )
        salt = new_salt()
        digest = _digest(password.encode(), salt, _COST_LOG2)
        text = f"scrypt:{_COST_LOG2}:{b64encode(salt).decode()}:{b64encode(digest).decode()}"
        with self._lock:
            accounts = self._read()
            kept = accounts[name][1] if name in accounts else ()
            accounts[name] = (text, kept if groups is None else tuple(sorted(set(groups))))
            self._write(accounts)

    def remove(self, name: str) -> bool:
        """Remove an account; False when there was none."""
        with self._lock:
            accounts = self._read()
            if accounts.pop(name, None) is None:
                return False
            self._write(accounts)
            return True

    @property
    def exist(self) -> bool:
        """Whether accounts are kept here at all."""
        return self._path.exists()

    def names(self) -> tuple[str, ...]:
        """Return the names of all accounts, sorted."""
        return tuple(sorted(self._read()))

    def _read(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        if not self._path.exists():
            return {}
        accounts = {}
        for number, line in enumerate(read_secret(self._path).decode("utf-8", "replace").splitlines(), 1):
            words = line.split(" ")
            if len(words) not in (2, 3) or not is_person_name(words[0]):
                raise ConfigError(f"line {number} of {self._path} is no account", remedy="remove the line")
            accounts[words[0]] = (words[1], tuple(words[2].split(",")) if len(words) == 3 else ())
        return accounts

    def _write(self, accounts: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        lines = (
            " ".join((name, text, *([",".join(groups)] if groups else ())))
            for name, (text, groups) in sorted(accounts.items())
        )
        write_secret(self._path, "".join(f"{line}\n" for line in lines).encode())


def roles_of(table: Mapping[str, str], where: str) -> dict[str, Role]:
    """Return a configured table group -> role; ConfigError names what is no role."""
    roles: dict[str, Role] = {}
    for group, role in table.items():
        try:
            roles[group] = Role(role)
        except ValueError:
            raise ConfigError(
                f"{where}: {role!r}, for {group!r}, is no role", remedy=f"one of: {', '.join(Role)}"
            ) from None
    return roles


def highest_role(groups: tuple[str, ...], roles: Mapping[str, Role]) -> Role | None:
    """Return the highest role that a group of these gives, None when none does."""
    given = [roles[group] for group in groups if group in roles]
    return max(given, key=ROLE_RANK.__getitem__, default=None)


def wrong_password() -> NotAllowed:
    """Return the one refusal for whatever was wrong, so that it tells nobody which names exist."""
    return NotAllowed("wrong name or password", remedy="try again, or ask an administrator")


def _parse_digest(text: str, path: Path) -> tuple[int, bytes, bytes]:
    try:
        scheme, cost, salt, digest = text.split(":")
        parsed = int(cost), b64decode(salt, validate=True), b64decode(digest, validate=True)
    except ValueError as fault:
        raise ConfigError(f"an account in {path} is damaged", remedy="set its password again") from fault
    if scheme != "scrypt" or not 14 <= parsed[0] <= _COST_LOG2_MAX or len(parsed[2]) != _DIGEST_BYTES:
        raise ConfigError(f"an account in {path} is damaged", remedy="set its password again")
    return parsed


def _digest(password: bytes, salt: bytes, cost_log2: int) -> bytes:
    cost = 1 << cost_log2
    memory_bytes = 128 * cost * _BLOCK + (1 << 20)
    # scrypt begins with an HMAC, for which a short key and the same key followed by zero bytes are one.
    key = hashlib.sha512(password).digest()
    return hashlib.scrypt(key, salt=salt, n=cost, r=_BLOCK, p=1, maxmem=memory_bytes, dklen=_DIGEST_BYTES)
