"""``[directory]`` and ``[tokens]`` of `site.toml`: who vouches for people beside this node's own accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from iceprod_p2p.base.settings import Faults, Setting

ROLES: Final = ("viewer", "production", "operator", "administrator")  # Those of `model.person`.
DIRECTORY: Final = (
    Setting("url", "text", "", "ldaps://host[:port], or ldap:// which then must start TLS; empty: none"),
    Setting(
        "ca_file", "path", "", "authorities that the server's certificate must come from; empty: the system's"
    ),
    Setting(
        "user_dn", "text", "", "a person's name in the tree, as uid={name},ou=people,dc=x; empty: search"
    ),
    Setting("user_base", "text", "", "where people are searched"),
    Setting("user_filter", "text", "(uid={name})", "which entry is the person's; exactly one must match"),
    Setting("name_attribute", "text", "uid", "holds the person's name exactly as it must be typed"),
    Setting("bind_dn", "text", "", "who searches; empty: anonymous"),
    Setting("bind_password_file", "path", "", "the searcher's password, in a file of mode 0600"),
    Setting("group_base", "text", "", "where groups are searched; empty: people have no groups from here"),
    Setting(
        "group_filter",
        "text",
        "(|(member={dn})(uniqueMember={dn})(memberUid={name}))",
        "which entries are groups of the person",
    ),
    Setting("timeout_s", "whole", 5, "for connecting, and for each answer", 1, 60),
    Setting(
        "roles",
        "table",
        {},
        "role of each group's members; given, the directory alone says who has which",
        choices=ROLES,
    ),
)
TOKENS: Final = (
    Setting(
        "issuer", "text", "", "the `iss` of accepted JSON web tokens (WLCG, SciTokens), https; empty: none"
    ),
    Setting("audience", "text", "", "the `aud` that a token must name; it must be given"),
    Setting("keys_file", "path", "", "the issuer's public keys (JWKS); empty: fetched from the issuer"),
    Setting("ca_file", "path", "", "authorities of the issuer's web server; empty: the system's"),
    Setting("scope", "text", "", "a word that the token's `scope` must hold; empty: none is asked for"),
    Setting("name_claim", "text", "sub", "the claim that names the person"),
    Setting("timeout_s", "number", 5.0, "for fetching keys", 0.1, 60),
    Setting("names", "table", {}, "the person of a claim's value, where they differ"),
    Setting(
        "roles",
        "table",
        {},
        "role of each group (`wlcg.groups`, `groups`); given, the issuer says who has which",
        choices=ROLES,
    ),
)


@dataclass(frozen=True, slots=True)
class DirectoryConfig:
    """``[directory]``; each field as the table `DIRECTORY` says."""

    url: str
    ca_file: str
    user_dn: str
    user_base: str
    user_filter: str
    name_attribute: str
    bind_dn: str
    bind_password_file: str
    group_base: str
    group_filter: str
    timeout_s: int
    roles: Mapping[str, str]

    @property
    def bind_password_path(self) -> Path:
        """Where the searcher's password is."""
        return Path(self.bind_password_file).expanduser()


@dataclass(frozen=True, slots=True)
class TokensConfig:
    """``[tokens]``; each field as the table `TOKENS` says."""

    issuer: str
    audience: str
    keys_file: str
    ca_file: str
    scope: str
    name_claim: str
    timeout_s: float
    names: Mapping[str, str]
    roles: Mapping[str, str]


def check_people(values: Mapping[str, dict[str, Any]], faults: Faults) -> None:
    """Note what contradicts itself in both sections."""
    directory, tokens = values["directory"], values["tokens"]
    if directory["url"]:
        if not directory["url"].startswith(("ldaps://", "ldap://")):
            faults.add(("directory", "url"), "must begin with ldaps:// or ldap:// (which then starts TLS)")
        if bool(directory["user_dn"]) == bool(directory["user_base"]):
            faults.add(("directory", "user_dn"), "give either user_dn or user_base, to find people by")
        for name in ("user_dn", "user_filter"):
            if directory[name] and "{name}" not in directory[name]:
                faults.add(("directory", name), "must say {name} where the person's name goes")
        if directory["group_base"] and not {"{name}", "{dn}"} & _fields(directory["group_filter"]):
            faults.add(("directory", "group_filter"), "must say {dn} or {name} where the person's goes")
        if bool(directory["bind_dn"]) != bool(directory["bind_password_file"]):
            faults.add(("directory", "bind_dn"), "needs bind_password_file, and the other way round")
    if tokens["issuer"]:
        if not tokens["issuer"].startswith("https://"):
            faults.add(("tokens", "issuer"), "must begin with https://")
        if not tokens["audience"]:
            faults.add(("tokens", "issuer"), "needs tokens.audience: tokens for others are not accepted")


def _fields(text: str) -> set[str]:
    return {field for field in ("{name}", "{dn}") if field in text}
