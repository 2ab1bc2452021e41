"""Who may call what: every method has a row, and the default is no."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from iceprod_p2p.base.errors import NotAllowed
from iceprod_p2p.model.identity import Identity, IdentityKind
from iceprod_p2p.model.person import Role
from iceprod_p2p.security.policy import POLICY, Caller, allowed, require
from iceprod_p2p.wire import pb

NODE, PILOT, PERSON = IdentityKind.NODE, IdentityKind.PILOT, IdentityKind.PERSON


def methods_of_the_wire() -> set[str]:
    """Every method of every service in the generated code."""
    found = set()
    for module in pkgutil.iter_modules(pb.__path__):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(f"{pb.__name__}.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return found


def test_every_method_has_a_row_and_every_row_a_method() -> None:
    assert methods_of_the_wire() == set(POLICY)
    assert all(POLICY.values())


def test_an_unknown_method_is_for_nobody() -> None:
    for kind in (None, *IdentityKind):
        for role in (None, *Role):
            assert not allowed("/iceprod.v1.Control/DropEverything", kind, role)
            assert not allowed("", kind, role)


def test_services_do_not_mix_callers() -> None:
    """Only the enrolment port answers strangers, only nodes speak as peers, only pilots as pilots."""
    only = {"Enrol": {None}, "Peer": {NODE}, "Pilots": {PILOT}, "Control": {PERSON}}
    for method in POLICY:
        service = method.split(".")[-1].split("/")[0]
        for kind in (None, *IdentityKind):
            assert allowed(method, kind, Role.ADMINISTRATOR) == (kind in only[service]), (method, kind)


def test_a_role_includes_the_ones_before_it_and_counts_for_people_alone() -> None:
    for method in POLICY:
        answers = [allowed(method, PERSON, role) for role in Role]
        assert answers == sorted(answers), method
        for kind in (None, NODE, PILOT):
            assert {allowed(method, kind, role) for role in (None, *Role)} == {allowed(method, kind)}


@pytest.mark.parametrize(
    ("method", "lowest"),
    [
        ("ListDatasets", Role.VIEWER),
        ("Submit", Role.PRODUCTION),
        ("ControlSite", Role.OPERATOR),
        ("Invite", Role.ADMINISTRATOR),
    ],
)
def test_each_role_begins_where_it_should(method: str, lowest: Role) -> None:
    allowed_roles = [role for role in Role if allowed(f"/iceprod.v1.Control/{method}", PERSON, role)]
    assert allowed_roles == list(Role)[list(Role).index(lowest) :]
    assert not allowed(f"/iceprod.v1.Control/{method}", PERSON, None)


def test_a_person_without_a_role_may_ask_who_they_are() -> None:
    assert allowed("/iceprod.v1.Control/WhoAmI", PERSON, None)


def test_refusals_say_what_is_needed() -> None:
    ada = Identity(PERSON, "ada", "", "icecube")
    pilot = Identity(PILOT, "p-1", "madison", "icecube")
    for method, identity, role, words in [
        ("Control/Invite", ada, Role.VIEWER, "Invite needs the role administrator; ada has role viewer"),
        ("Control/Submit", ada, None, "ada has no role"),
        ("Control/Submit", None, None, "needs a certificate"),
        ("Control/Submit", pilot, None, "a pilot may not call Submit"),
        ("Peer/Link", ada, Role.ADMINISTRATOR, "people may not call Link"),
    ]:
        with pytest.raises(NotAllowed, match=words):
            require(f"/iceprod.v1.{method}", identity, role)
    require("/iceprod.v1.Control/Submit", ada, Role.OPERATOR)


def test_roles_and_columns_have_the_same_names() -> None:
    assert {*Role, *IdentityKind, "anyone"} == set(Caller)
