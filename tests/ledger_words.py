"""The words of a scenario's lines: how each becomes a command, from `key=value` options that people can read.

A task is ``1.0.2`` (dataset, job, task) at the attempt given by ``attempt=`` (0 unless told), or ``1.0.2@3``.  Content
is a word that stands for its SHA-256; a pilot, a token and a certificate are words that stand for theirs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from hashlib import sha256

import msgspec

from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.commands import Command, TaskRef, Verb
from iceprod_p2p.ledger.commands_blobs import DropBlobs, ForgetBlobs
from iceprod_p2p.ledger.commands_replacing import ReplaceNode, RestoreCluster
from iceprod_p2p.ledger.commands_software import PublishSoftware, RetireSoftware
from iceprod_p2p.ledger.commands_trust import (
    AddAuthority,
    AskRenewal,
    EndAuthority,
    RemovePerson,
    RetireAuthority,
)
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.resources import Offer, Requirements, Usage
from iceprod_p2p.model.site import Member, MemberRole, SiteCounts
from iceprod_p2p.model.software import Build, parse_platform
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.model.trust import Renewal

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def digest(word: str) -> bytes:
    """What a word stands for where the ledger wants 32 bytes."""
    return sha256(word.encode()).digest()


def duration_ms(text: str) -> int:
    """Read ``10s``, ``5m``, ``2h``, ``1d`` or ``250ms``."""
    found = re.fullmatch(r"\+?(\d+)(ms|s|m|h|d)", text)
    if found is None:
        raise ValueError(f"{text!r} is no time such as 10s, 5m or 2h")
    return int(found[1]) * UNITS_MS[found[2]]


class Options:
    """The options of one line; one that no word asked for is an error of the scenario."""

    def __init__(self, words: list[str]) -> None:
        self._values = dict(word.split("=", 1) for word in words)
        self._asked: set[str] = set()

    def text(self, name: str, default: str | None = None) -> str:
        """One word."""
        self._asked.add(name)
        value = self._values.get(name, default)
        if value is None:
            raise ValueError(f"{name}= is missing")
        return value

    def has(self, name: str) -> bool:
        """Whether an option was given."""
        return name in self._values

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        return int(self.text(name, None if default is None else str(default)))

    def time_ms(self, name: str, default: str | None = None) -> int:
        """A time."""
        return duration_ms(self.text(name, default))

    def list(self, name: str) -> list[str]:
        """Words with commas between."""
        return [word for word in self.text(name, "").split(",") if word]

    def names(self, name: str) -> tuple[str, ...]:
        """The same as a tuple."""
        return tuple(self.list(name))

    def ref(self) -> TaskRef:
        """One attempt."""
        return self._ref(self.text("task"))

    def refs(self, name: str = "tasks") -> tuple[TaskRef, ...]:
        """Several attempts."""
        return tuple(self._ref(word) for word in self.list(name))

    def _ref(self, word: str) -> TaskRef:
        place, _, attempt = word.partition("@")
        return TaskRef(*map(int, place.split(".")), int(attempt or self.text("attempt", "0")))

    def files(self) -> tuple[FileEntry, ...]:
        """``name:content`` or ``name:content:kind``, commas between; all of them at the same ``urls``."""
        found = []
        urls = self.names("urls")
        for word in self.list("files"):
            name, content, *kind = word.split(":")
            entry = FileEntry(name, len(content), digest(content).hex(), *kind)
            found.append(msgspec.structs.replace(entry, urls=urls))
        return tuple(found)

    def replicas(self, name: str) -> tuple[c.ReplicaRef, ...]:
        """``1.0/name`` each, or ``1/name`` for a file of the dataset itself."""
        found = []
        for word in self.list(name):
            place, _, file = word.partition("/")
            dataset, _, job = place.partition(".")
            found.append(c.ReplicaRef(int(dataset), int(job or -1), file))
        return tuple(found)

    def statistics(self) -> dict[str, float]:
        """``name:number``, commas between."""
        return {word.split(":")[0]: float(word.split(":")[1]) for word in self.list("statistics")}

    def usage(self) -> Usage:
        """What an attempt used."""
        return Usage(
            self.time_ms("wall", "1s"), 0, self.number("memory_mib", 10), self.number("disk_mib", 10)
        )

    def take_all(self) -> dict[str, str]:
        """Every option as it was written."""
        self._asked.update(self._values)
        return dict(self._values)

    def close(self) -> None:
        """Refuse options that nobody asked for."""
        left = sorted(set(self._values) - self._asked)
        if left:
            raise ValueError(f"unknown option {left[0]}=")


def brackets(word: str) -> tuple[str, dict[str, str]]:
    """Split ``name[key:value;key:value]``."""
    name, _, rest = word.partition("[")
    return name, dict(part.split(":", 1) for part in rest.rstrip("]").split(";") if part)


def shapes(words: list[str]) -> tuple[TaskShape, ...]:
    """Read ``generate,detect<generate,merge<generate+detect[gpus:1]``; a parent may also be a number."""
    names: list[str] = []
    found: list[TaskShape] = []
    for word in words:
        name, needs = brackets(word)
        name, _, above = name.partition("<")
        parents = tuple(
            int(parent) if parent.isdigit() else names.index(parent) for parent in above.split("+") if parent
        )
        attributes = tuple(needs.pop("attributes", "").split("+")) if "attributes" in needs else ()
        numbers = {key: int(value) for key, value in needs.items()}
        names.append(name)
        found.append(TaskShape(name, parents, Requirements(**numbers, attributes=attributes)))
    return tuple(found)


def offers(words: list[str]) -> tuple[Offer, ...]:
    """Read ``std,big[slots:3;memory_mib:4000;attributes:gpu-emulation]``."""
    found = []
    for word in words:
        name, has = brackets(word)
        attributes = tuple(has.pop("attributes", "").split("+")) if "attributes" in has else ()
        shared = has.pop("shared", "no") == "yes"
        numbers = {"slots": 1_000, **{key: int(value) for key, value in has.items()}}
        found.append(Offer(name, attributes=attributes, gpu_tasks_only=not shared, **numbers))
    return tuple(found)


def _submit(o: Options) -> Command:
    return c.SubmitDataset(
        o.text("steering", "5" * 64),
        o.number("jobs", 1),
        shapes(o.list("tasks") if o.has("tasks") else ["alone"]),
        7,
        o.text("owner", "ada"),
        o.text("group", ""),
        o.text("alias", ""),
        priority=o.number("priority", 500),
        sites_allowed=o.names("allowed"),
        sites_excluded=o.names("excluded"),
        attempts_max=o.number("attempts", 3),
        retry_pause_ms=o.time_ms("pause", "10s"),
        closing=shapes(o.list("closing")),
        blobs=tuple(digest(word).hex() for word in o.list("blobs")),
    )


def _control(verb: Verb) -> Callable[[Options], Command]:
    def command(o: Options) -> Command:
        if o.has("dataset"):
            return c.ControlDataset(o.number("dataset"), verb)
        if o.has("task"):
            dataset, job, task = map(int, o.text("task").split("."))
            return c.ControlTasks(dataset, verb, job, job, task)
        name, jobs = o.text("jobs").split(".")
        first, _, last = jobs.partition("-")
        return c.ControlTasks(int(name), verb, int(first), int(last or first))

    return command


def _control_or_site(verb: Verb, site_verb: c.SiteVerb) -> Callable[[Options], Command]:
    def command(o: Options) -> Command:
        return _control_site(site_verb)(o) if o.has("site") else _control(verb)(o)

    return command


def _control_site(verb: c.SiteVerb) -> Callable[[Options], Command]:
    return lambda o: c.ControlSite(o.text("site"), verb, o.text("reason", ""))


def _set(o: Options) -> Command:
    return c.SetDataset(
        o.number("dataset"),
        o.number("priority") if o.has("priority") else None,
        o.names("allowed") if o.has("allowed") else None,
        o.names("excluded") if o.has("excluded") else None,
        o.number("attempts") if o.has("attempts") else None,
        o.text("alias") if o.has("alias") else None,
        owner=o.text("owner") if o.has("owner") else None,
        group=o.text("group") if o.has("group") else None,
    )


def _member(o: Options) -> Member:
    return Member(
        o.text("node"), o.text("site"), o.text("address", "host:7000"), MemberRole(o.text("role", "observer"))
    )


def _add_node(o: Options) -> Command:
    token = digest(o.text("token")) if o.has("token") else b""
    key = o.text("key", "key")
    authority = o.text("authority", "ca").encode()
    return c.AddNode(
        _member(o),
        authority,
        digest(o.text("certificate", "certificate")),
        key,
        bytes(32),
        token,
        "",
        "",
        o.number("least", 1),
        o.number("most", versions.VERSION_MOST),
    )


def _replace(o: Options) -> Command:
    token = digest(o.text("token")) if o.has("token") else b""
    certificate, key = digest(o.text("certificate", "certificate")), o.text("key", "key")
    authority = o.text("authority", "ca").encode()
    old = o.text("old")
    most = versions.VERSION_MOST
    return ReplaceNode(
        _member(o), old, authority, certificate, key, bytes(32), "", "", token, version_most=most
    )


def _restore(o: Options) -> Command:
    entry = o.number("entry")
    return RestoreCluster(
        *(_member(o), b"ca", digest("certificate"), "key", bytes(32), "", "", entry, 1),
        digest("epoch")[:16],
        version_most=versions.VERSION_MOST,
    )


def _holder(o: Options) -> bytes:
    return digest(o.text("pilot", "p1"))


def _fail(o: Options) -> Command:
    return c.FailTask(
        o.ref(),
        b"" if o.has("lost") and o.text("lost") == "yes" else _holder(o),
        o.text("site", "madison"),
        FailReason(o.text("reason", "payload")),
        o.text("message", ""),
        o.number("exit", 0),
        o.usage(),
        o.files(),
    )


def _verify(o: Options) -> Command:
    found = o.text("found")
    sha = "" if found == "nothing" else digest(found).hex()
    return c.RecordVerification(o.replicas("file")[0], o.text("site"), sha, o.text("url", ""))


def _blob(o: Options) -> Command:
    size_bytes = o.number("size", len(o.text("content")))
    return c.RecordBlob(digest(o.text("content")).hex(), size_bytes, o.names("nodes"))


def _publish(o: Options) -> Command:
    content = o.text("content")
    variables = dict.fromkeys(o.list("set"), "{root}/x")
    build = Build(
        parse_platform(o.text("platform", "any")), digest(content).hex(), len(content), variables=variables
    )
    return PublishSoftware(o.text("name"), o.text("version"), build, o.text("owner", "ada"))


def _retire(o: Options) -> Command:
    return RetireSoftware(
        o.text("name"), o.text("version"), o.text("platform", ""), o.text("forget", "no") == "yes"
    )


def _drop_blobs(o: Options) -> Command:
    return DropBlobs(o.text("node"), tuple(digest(word).hex() for word in o.list("content")))


def _forget_blobs(o: Options) -> Command:
    return ForgetBlobs(tuple(digest(word).hex() for word in o.list("content")))


WORDS: dict[str, Callable[[Options], Command]] = {
    "name-cluster": lambda o: c.FoundCluster(
        o.text("name", "ice"), b"root", o.time_ms("grace", "10m"), o.number("version", versions.VERSION_MOST)
    ),
    "invite": lambda o: c.Invite(digest(o.text("token")), o.text("site"), o.time_ms("lifetime", "15m")),
    "add-node": _add_node,
    "promote": lambda o: c.PromoteMember(o.text("node")),
    "remove": lambda o: c.RemoveMember(o.text("node")),
    "replace": _replace,
    "restore": _restore,
    "renew": lambda o: c.RenewNode(
        *(_member(o), digest(o.text("certificate", "renewed")), "", o.text("name", "")),
        digest(o.text("authority")) if o.has("authority") else b"",
        digest(o.text("people")) if o.has("people") else b"",
    ),
    "person": lambda o: c.SetPerson(o.text("name"), Role(o.text("role")), o.names("groups")),
    "revoke": lambda o: c.RevokeCertificate(digest(o.text("certificate")), o.text("reason", "")),
    "add-authority": lambda o: AddAuthority(
        o.text("node"), o.text("scope", ""), o.text("certificate", "").encode(), o.text("above", "").encode()
    ),
    "retire-authority": lambda o: RetireAuthority(
        o.text("node"), o.text("scope", ""), o.text("certificate").encode()
    ),
    "end-authority": lambda o: EndAuthority(
        o.text("scope"), digest(o.text("certificate")), o.text("reason", "")
    ),
    "ask-renewal": lambda o: AskRenewal(Renewal(o.text("what")), o.text("node", "")),
    "remove-person": lambda o: RemovePerson(o.text("name"), o.number("before", 1), o.text("reason", "")),
    "announce": lambda o: c.AnnounceVersions(o.text("node"), o.number("least"), o.number("most")),
    "raise-version": lambda o: c.RaiseVersion(o.number("to", 0)),
    "settings": lambda o: c.SetSettings(o.time_ms("grace", "0s")),
    "submit": _submit,
    "add-jobs": lambda o: c.AddJobs(o.number("dataset"), o.number("jobs")),
    "suspend": _control(Verb.SUSPEND),
    "resume": _control_or_site(Verb.RESUME, c.SiteVerb.RESUME),
    "reset": _control(Verb.RESET),
    "reset-failed": _control(Verb.RESET_FAILED),
    "abort": _control(Verb.ABORT),
    "truncate": _control(Verb.TRUNCATE),
    "delete": _control(Verb.DELETE),
    "set": _set,
    "drain": _control_site(c.SiteVerb.DRAIN),
    "ban": _control_site(c.SiteVerb.BAN),
    "beat": lambda o: c.Heartbeat(o.text("site"), o.text("node"), SiteCounts(), o.refs("vouch")),
    "claim": lambda o: c.Claim(
        o.text("site"), offers(o.list("slots") if o.has("slots") else ["std"]), o.number("limit", 1)
    ),
    "queue": lambda o: c.QueueTasks(o.text("site", "madison"), o.refs()),
    "copy": lambda o: c.CopyTask(o.ref(), _holder(o)),
    "finish": lambda o: c.FinishTask(
        o.ref(), _holder(o), o.text("site", "madison"), o.statistics(), o.files(), o.usage()
    ),
    "fail": _fail,
    "give-back": lambda o: c.GiveBack(o.text("site", "madison"), o.refs()),
    "replicas": lambda o: c.RecordReplicas(
        o.text("site"), o.replicas("added"), o.replicas("dropped"), o.replicas("spent")
    ),
    "verify": _verify,
    "blob": _blob,
    "publish": _publish,
    "retire": _retire,
    "drop-blobs": _drop_blobs,
    "forget-blobs": _forget_blobs,
}


def start_tasks(o: Options, now_ms: int) -> Command:
    """Hand claims to a pilot, with a passkey that lives for a day unless told."""
    holder, pilot, host = _holder(o), o.text("pilot", "p1"), o.text("host", "node1")
    expires_ms = now_ms + o.time_ms("passkey", "1d")
    starts = tuple(
        c.TaskStart(ref, digest(f"{o.text('key', pilot)} {ref}")[:16], "key", holder, pilot, host, expires_ms)
        for ref in o.refs()
    )
    return c.StartTasks(o.text("site", "madison"), starts)


def read_line(line: str) -> tuple[str, Options]:
    """Split a line's command into its word and options."""
    word, *options = shlex.split(line)
    return word, Options(options)
