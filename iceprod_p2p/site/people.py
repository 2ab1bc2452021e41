"""People: passwords for certificates, roles, and how somebody is shut out.

A node with an authority for people (the founder's, and every voter's whose site wants it) lets people log in, if it
has accounts, a directory or a token issuer to ask; every other says Unavailable, so that callers go on to one that
does.  Roles are in the ledger, and so is who was shut out: any node changes them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, NotAllowed, NotFound, Refused, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import Command, RevokeCertificate, SetPerson
from iceprod_p2p.ledger.commands_trust import RemovePerson
from iceprod_p2p.ledger.versions import needed
from iceprod_p2p.model.identity import IdentityKind, identity_uri, is_person_name
from iceprod_p2p.model.person import Role
from iceprod_p2p.security.authenticators import Authenticator, LocalAccounts, Login, wrong_password
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import check_request, expires_ms, fingerprint
from iceprod_p2p.security.tokens import TokenIssuer
from iceprod_p2p.security.trust import Trust
from iceprod_p2p.site.consensus import Consensus, applied
from iceprod_p2p.site.control_writes import checked_request_id
from iceprod_p2p.site.issued import FILE, IssuedCertificates
from iceprod_p2p.site.node_keys import AUTHORITY, NodeKeys
from iceprod_p2p.wire.pb import common_pb2, control_pb2, enrol_pb2
from iceprod_p2p.wire.translate import text

ACCOUNTS: Final = "accounts"  # Beside the people's authority; see `iceprod-node account`.
WAITING_MAX: Final = 32  # Logins under way; each password costs a tenth of a second and 32 MiB.
THREADS: Final = 2
FAILURES_MAX: Final = 5  # In a row, from one address for one name; then there is a pause.
PAUSE_S: Final = 60.0
REMEMBERED_MAX: Final = 10_000
PASSWORD_LENGTH_MAX: Final = 1_024
log = get_logger("people")


class PeopleView(Protocol):
    """What is read of the cluster."""

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node that can be called, the oldest first."""
        ...

    def person(self, name: str) -> tuple[Role | None, tuple[str, ...]]:
        """A person's role and groups."""
        ...

    def trust(self) -> Trust:
        """Whom the cluster believes."""
        ...


class People:
    """Used on the event loop only."""

    def __init__(
        self,
        *,
        keys: Callable[[], NodeKeys],
        data_dir: Path,
        lifetime_ms: int,
        consensus: Consensus,
        cluster: PeopleView,
        clock: Clock,
        directory: Authenticator | None = None,
        tokens: TokenIssuer | None = None,
    ) -> None:
        self._keys = keys
        self._accounts = LocalAccounts(data_dir / AUTHORITY / ACCOUNTS)
        self._directory = directory
        self._tokens = tokens
        self._issued = IssuedCertificates(data_dir / AUTHORITY / FILE)
        self._lifetime_ms = lifetime_ms
        self._consensus = consensus
        self._cluster = cluster
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="login")
        self._disk = asyncio.Lock()  # One writer of the list of certificates.
        self._waiting = 0
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    async def log_in(self, request: enrol_pb2.LoginRequest, *, caller: str) -> enrol_pb2.LoginReply:
        """Return a certificate for a person's key when the password or token is right; `caller` is their
        host.
        """
        authority = self._authority()
        name = request.name
        if not is_person_name(name) or len(request.password) > PASSWORD_LENGTH_MAX:
            raise wrong_password()
        uri = identity_uri(IdentityKind.PERSON, name, site="", cluster=authority.cluster)
        check_request(request.csr_pem, claim=uri)
        login = await self._vouched(request, caller)
        self._require_not_out(name)
        if login.role_is_given:
            await self._take_role(login)
        now_ms = self._clock.wall_ms()
        certificate = authority.issue(
            request.csr_pem, kind=IdentityKind.PERSON, name=name, now_ms=now_ms, lifetime_ms=self._lifetime_ms
        )
        mark, end_ms = fingerprint(certificate), expires_ms(certificate)
        async with self._disk:
            await self._on_thread(lambda: self._issued.note(name, mark, expires_ms=end_ms, now_ms=now_ms))
        role, _ = self._cluster.person(name)
        log.info("person logged in", person=name, caller=caller, fingerprint=mark)
        return enrol_pb2.LoginReply(
            chain_pem=authority.chain(certificate),
            root_pem=self._keys().root_pem,
            cluster=authority.cluster,
            nodes=self._cluster.nodes(),
            lifetime_s=max(1, -((now_ms - end_ms) // 1_000)),
            role=str(role or ""),
        )

    async def set_person(self, request: control_pb2.SetPersonRequest, actor: str) -> control_pb2.ControlReply:
        """Give a person a role and groups; the last administrator stays one."""
        if not is_person_name(request.name):
            raise BadInput(
                f"{request.name[:80]!r} cannot name a person", remedy="use letters, digits and '_.@-'"
            )
        try:
            role = Role(request.role)
        except ValueError:
            raise BadInput(f"{request.role[:40]!r} is no role", remedy=f"one of: {', '.join(Role)}") from None
        await self._consensus.barrier()
        present, groups = self._cluster.person(request.name)
        if request.add and present is not None:
            raise Refused(
                "exists",
                f"{request.name} is known already, with the role {present}",
                remedy=f"change it: iceprod person role {request.name} {role}",
            )
        if not request.add and present is None:
            raise NotFound(
                f"there is no person {request.name!r}", remedy=f"iceprod person add {request.name} {role}"
            )
        if present is Role.ADMINISTRATOR is not role:
            self._require_another_administrator(request.name)
        if request.groups_given:
            groups = tuple(sorted({text(group, "a group", 63) for group in request.groups}))
        notes = await self._do(
            SetPerson(request.name, role, groups), f"person:{actor}", checked_request_id(request.request_id)
        )
        return control_pb2.ControlReply(notes=notes)

    async def revoke(self, request: control_pb2.RevokePersonRequest, actor: str) -> control_pb2.ControlReply:
        """Refuse every certificate of a person from now on, on all nodes, and remove the account."""
        name, reason = text(request.name, "a person", 63), text(request.reason, "a reason", 500)
        if name == actor:
            raise BadInput("nobody can revoke themselves", remedy="ask another administrator")
        await self._consensus.barrier()
        role, _ = self._cluster.person(name)
        now_ms = self._clock.wall_ms()
        had_account = name in await self._on_thread(self._accounts.names)
        marks = await self._on_thread(lambda: self._issued.of(name, now_ms=now_ms))
        if role is None and not had_account and not marks:
            raise NotFound(
                f"there is no person {name!r}",
                remedy="`iceprod person list` shows those there are; who logged in without a role is known to the"
                " node that let them in: iceprod --node NODE person remove NAME",
            )
        if role is Role.ADMINISTRATOR:
            self._require_another_administrator(name)
        if await self._on_thread(self._version) >= needed(RemovePerson(name, now_ms, reason)):
            await self._do(RemovePerson(name, now_ms, reason), f"person:{actor}", b"")
            refused = f"every certificate of {name} is refused from now on"
        else:  # Some nodes cannot read that yet: what this node let in ends, as it always could.
            for mark in marks:
                await self._do(RevokeCertificate(bytes.fromhex(mark), reason), f"person:{actor}", b"")
            refused = (
                f"{len(marks)} certificates of {name} from this node are refused from now on; the role stays:"
                " repeat this when the cluster's version was raised (`iceprod cluster raise-version`)"
            )
        async with self._disk:
            await self._on_thread(lambda: self._accounts.remove(name))
        log.info("person shut out", person=name, certificates=len(marks), by=actor)
        return control_pb2.ControlReply(
            notes=[
                refused,
                "the account is gone" if had_account else "there was no account here",
            ]
        )

    async def step(self) -> None:
        """Remove the accounts here of people who were shut out at another node."""
        out = [name for name, (now, _) in self._cluster.trust().shut_out.items() if now]
        if not out:
            return
        for name in set(await self._on_thread(self._accounts.names)).intersection(out):
            async with self._disk:
                await self._on_thread(partial(self._accounts.remove, name))
            log.info("account removed", person=name)

    def _require_not_out(self, name: str) -> None:
        out, _ = self._cluster.trust().shut_out.get(name, (False, 0))
        if out:
            raise NotAllowed(f"an administrator ended the access of {name}", remedy="ask an administrator")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _vouched(self, request: enrol_pb2.LoginRequest, caller: str) -> Login:
        """Return who the caller is; the accounts of this node go before the directory's."""
        name, token, password = request.name, request.token, request.password
        if not token:
            return await self._checked(name, caller, lambda: self._by_password(name, password))
        issuer = self._tokens
        if issuer is None:
            raise NotAllowed("this cluster accepts no tokens", remedy="log in with a password")
        login = await self._checked(name, caller, lambda: issuer.authenticate(token))
        if login.name != name:
            raise NotAllowed(
                f"the token is of {login.name}, not of {name}", remedy=f"iceprod login {login.name}"
            )
        return login

    def _by_password(self, name: str, password: str) -> Login:
        if self._directory is not None and name not in self._accounts.names():
            return self._directory.authenticate(name, password)
        return self._accounts.authenticate(name, password)

    async def _checked(self, name: str, caller: str, check: Callable[[], Login]) -> Login:
        """Run `check` on a thread; after some refusals in a row, refuse without it for a while."""
        where = (name, caller)
        failures, until_s = self._failures.get(where, (0, 0.0))
        if failures >= FAILURES_MAX and self._clock.monotonic_s() < until_s:
            raise NotAllowed(
                f"{failures} refused logins in a row", remedy=f"wait {PAUSE_S:.0f} s, then try again"
            )
        if self._waiting >= WAITING_MAX:
            raise Unavailable("too many people log in at once", remedy="try again in a moment")
        self._waiting += 1
        try:
            login: Login = await self._on_thread(check)
        except NotAllowed as refusal:
            self._failures[where] = (failures + 1, self._clock.monotonic_s() + PAUSE_S)
            self._failures.move_to_end(where)
            if len(self._failures) > REMEMBERED_MAX:
                self._failures.popitem(last=False)
            log.warning("login refused", person=name, caller=caller, why=refusal.message)
            raise
        except Unavailable as silence:
            log.error("login cannot be checked", person=name, why=silence.message)
            raise
        finally:
            self._waiting -= 1
        self._failures.pop(where, None)
        return login

    async def _take_role(self, login: Login) -> None:
        """Make the ledger say what the directory or issuer says of a person's role and groups."""
        await self._consensus.barrier()
        role, groups = self._cluster.person(login.name)
        if login.role is None:
            raise NotAllowed(
                f"{login.name} is in no group that has a role here",
                remedy="ask for membership, or ask an administrator which groups have roles",
            )
        if (role, groups) == (login.role, login.groups):
            return
        if role is Role.ADMINISTRATOR is not login.role:
            self._require_another_administrator(login.name)
        log.info("role taken from the directory", person=login.name, role=login.role, groups=login.groups)
        node = f"node:{self._keys().node_id}"  # The person may not name themselves; who vouches for them may.
        await self._do(SetPerson(login.name, login.role, login.groups), node, b"")

    def _version(self) -> int:
        with self._consensus.view() as kv:
            return queries.version(kv)

    def _require_another_administrator(self, name: str) -> None:
        with self._consensus.view() as kv:
            after: str | None = ""
            while after is not None:
                page = queries.people(kv, after=after, limit=1_000)
                if any(row.role is Role.ADMINISTRATOR and row.name != name for row in page.rows):
                    return
                after = page.next_after
        raise Refused(
            "last_administrator", f"{name} is the only administrator", remedy="make somebody else one first"
        )

    def _authority(self) -> Authority:
        keys = self._keys()
        nobody = self._directory is None and self._tokens is None and not self._accounts.exist
        if keys.people is None or nobody:
            founder = next(iter(self._cluster.nodes()), None)
            where = f"{founder.enrol_address} ({founder.node_id})" if founder else "the founder's node"
            raise Unavailable(f"node {keys.node_id} does not vouch for people", remedy=f"log in at {where}")
        return keys.people

    async def _do(self, command: Command, actor: str, request_id: bytes) -> tuple[str, ...]:
        outcome = await self._consensus.propose(command, actor=actor, request_id=request_id or None)
        return applied(outcome).notes

    async def _on_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
