"""A directory server (LDAP, RFC 4511) says who a person is: the password is tried there, groups are read there.

Nothing but TLS carries a password, names are escaped by RFC 4514 and RFC 4515, and an empty password, which
a directory would take as an anonymous success (RFC 4513, 5.1.2), is refused here.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

import ldap3
from ldap3.core import exceptions as ldap_errors
from ldap3.core import results
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn

from iceprod_p2p.base.config_people import DirectoryConfig
from iceprod_p2p.base.errors import ConfigError, Unavailable
from iceprod_p2p.model.identity import is_person_name
from iceprod_p2p.security.authenticators import (
    PASSWORD_BYTES_MAX,
    Login,
    highest_role,
    roles_of,
    wrong_password,
)
from iceprod_p2p.security.keyfiles import read_secret

GROUPS_MAX: Final = 256
_WRONG: Final = (  # What a server answers to a bind that is this person's fault.
    results.RESULT_INVALID_CREDENTIALS,
    results.RESULT_NO_SUCH_OBJECT,
    results.RESULT_INVALID_DN_SYNTAX,
    results.RESULT_INAPPROPRIATE_AUTHENTICATION,
    results.RESULT_CONSTRAINT_VIOLATION,
    results.RESULT_UNWILLING_TO_PERFORM,
    results.RESULT_INSUFFICIENT_ACCESS_RIGHTS,
)


class DirectoryServer:
    """An `Authenticator` that asks a directory server; blocks on the network, so call it in a worker thread.

    Each question is a connection of its own, bounded by `timeout_s` for connecting and for each answer.
    """

    def __init__(self, config: DirectoryConfig) -> None:
        self._config = config
        self._roles = roles_of(config.roles, "directory.roles")
        try:
            tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=config.ca_file or None)
            self._server = ldap3.Server(
                config.url, tls=tls, connect_timeout=config.timeout_s, get_info=ldap3.NONE
            )
        except ldap_errors.LDAPException as fault:
            raise ConfigError(
                f"directory.url or directory.ca_file cannot be used: {fault}", remedy="mend site.toml"
            ) from fault

    def authenticate(self, name: str, password: str) -> Login:
        """Return who it is, with groups and role; NotAllowed for a wrong name or password, Unavailable when
        the server cannot be asked.
        """
        if not is_person_name(name) or not _may_be_sent(password):
            raise wrong_password()
        try:
            dn = self._dn_of(name)
            with self._connection(dn, password) as connection:
                self._check_spelling(connection, name, dn)
                groups = self._groups(connection, name, dn)
        except (ldap_errors.LDAPException, OSError) as fault:
            raise Unavailable(
                f"the directory server cannot be asked: {_in_short(fault)}",
                remedy="try again; else its operator may know more, or `iceprod-node` logs do",
            ) from fault
        return Login(name, groups, highest_role(groups, self._roles), role_is_given=bool(self._roles))

    def _dn_of(self, name: str) -> str:
        if self._config.user_dn:
            return self._config.user_dn.replace("{name}", escape_rdn(name))
        with self._connection(self._config.bind_dn, self._searchers_password()) as connection:
            connection.search(
                self._config.user_base,
                self._config.user_filter.replace("{name}", escape_filter_chars(name)),
                attributes=ldap3.NO_ATTRIBUTES,
                size_limit=2,
                time_limit=max(1, int(self._config.timeout_s)),
            )
            found = _entries(connection)
        if len(found) != 1:  # Two people of one name: neither can be told from the other.
            raise wrong_password()
        return str(found[0]["dn"])

    def _check_spelling(self, connection: Any, name: str, dn: str) -> None:
        """Refuse PAUL for paul: a directory takes both for one person, the ledger would see two."""
        attribute = self._config.name_attribute
        connection.search(dn, "(objectClass=*)", search_scope=ldap3.BASE, attributes=[attribute])
        spelled = [
            value for entry in _entries(connection) for value in entry["raw_attributes"].get(attribute, ())
        ]
        if not spelled:
            raise ldap_errors.LDAPOperationResult(f"people may not read the {attribute} of their own entry")
        if name.encode() not in spelled:
            raise wrong_password()

    def _groups(self, connection: Any, name: str, dn: str) -> tuple[str, ...]:
        if not self._config.group_base:
            return ()
        wanted = self._config.group_filter.replace("{dn}", escape_filter_chars(dn))
        connection.search(
            self._config.group_base,
            wanted.replace("{name}", escape_filter_chars(name)),
            attributes=["cn"],
            size_limit=GROUPS_MAX,
            time_limit=max(1, int(self._config.timeout_s)),
        )
        names = (str(cn) for entry in _entries(connection) for cn in entry["attributes"].get("cn", ()))
        return tuple(sorted({group for group in names if is_person_name(group)}))

    def _connection(self, dn: str, password: str) -> Any:
        """Return a bound connection, a context manager that unbinds; NotAllowed when the bind was refused."""
        plain = self._config.url.startswith("ldap://")
        connection = ldap3.Connection(
            self._server,
            user=dn or None,
            password=password or None,
            authentication=ldap3.SIMPLE if dn else ldap3.ANONYMOUS,
            receive_timeout=self._config.timeout_s,
            auto_referrals=False,
            read_only=True,
            raise_exceptions=False,
            auto_bind=ldap3.AUTO_BIND_NONE,
        )
        connection.open()
        if plain and not connection.start_tls():
            raise ldap_errors.LDAPStartTLSError("the server does not start TLS")
        if connection.bind():
            return connection
        answer = connection.result
        connection.unbind()
        if answer["result"] in _WRONG and dn and dn != self._config.bind_dn:
            raise wrong_password()
        raise ldap_errors.LDAPBindError(f"{answer['description']} {answer['message']}".strip())

    def _searchers_password(self) -> str:
        if not self._config.bind_password_file:
            return ""
        return read_secret(self._config.bind_password_path).decode("utf-8", "replace").rstrip("\r\n")


def _may_be_sent(password: str) -> bool:
    try:
        return 0 < len(password.encode()) <= PASSWORD_BYTES_MAX and "\0" not in password
    except UnicodeEncodeError:
        return False


def _entries(connection: Any) -> list[dict[str, Any]]:
    done = (results.RESULT_SUCCESS, results.RESULT_SIZE_LIMIT_EXCEEDED, results.RESULT_NO_SUCH_OBJECT)
    if connection.result["result"] not in done:
        raise ldap_errors.LDAPOperationResult(f"the search failed: {connection.result['description']}")
    return [entry for entry in connection.response or () if entry.get("type") == "searchResEntry"]


def _in_short(fault: Exception) -> str:
    text = " ".join(str(fault).split())
    return text[:300] or type(fault).__name__
