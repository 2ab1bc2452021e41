"""What a scenario may look at: one line of text for a task, job, dataset, site, file or anything else a query shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import sha256

from iceprod_p2p.ledger import queries, rows
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.model.resources import Requirements
from tests.ledger_words import Options, digest


def _numbers(counts: Mapping[StrEnum, int] | Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def needs_text(needs: Requirements) -> str:
    """Requirements in a few words; only what is not the default."""
    usual = Requirements()
    words = [
        f"{field} {getattr(needs, field)}"
        for field in ("cpus", "gpus", "memory_mib", "disk_mib", "walltime_s")
        if getattr(needs, field) != getattr(usual, field)
    ]
    return ", ".join([*words, *needs.attributes])


def _task(kv: KeyValue, o: Options) -> str:
    dataset, job, task = map(int, o.text("task").split("."))
    detail = queries.task(kv, dataset, job, task)
    if detail is None:
        return "none"
    row = detail.row
    words = [f"{row.state} at {row.site}" if row.site else str(row.state)]
    if row.pilot or row.host:
        words[0] += f" on {row.host}" + (f" by {row.pilot}" if row.pilot else "")
    words.append(f"attempt {row.attempt}")
    if row.failures or row.losses:
        words.append(f"failures {row.failures}, losses {row.losses}")
    if row.due_ms:
        words.append(f"due in {(row.due_ms - queries.ledger_time_ms(kv)) / 1_000:g} s")
    if needs_text(row.requirements):
        words.append(f"needs {needs_text(row.requirements)}")
    if row.reason is not None:
        words.append(f"last {row.reason}" + (f" ({row.message})" if row.message else ""))
    if detail.statistics:
        words.append("statistics " + " ".join(f"{n}:{v:g}" for n, v in sorted(detail.statistics.items())))
    words += [f"file {file.name}" for file in detail.files]
    words += [f"log {log.file.name} of attempt {log.attempt}" for log in detail.logs]
    return ", ".join(words)


def _explain(kv: KeyValue, o: Options) -> str:
    dataset, job, task = map(int, o.text("task").split("."))
    why = queries.explain(kv, dataset, job, task)
    if why is None:
        return "none"
    return f"{why.sentence} [{why.remedy}]" if why.remedy else why.sentence


def _holder(kv: KeyValue, o: Options) -> str:
    start = queries.start_record(kv, o.ref())
    return "nobody" if start is None else f"{start.pilot} on {start.host} at {start.site}"


def _job(kv: KeyValue, o: Options) -> str:
    dataset, job = map(int, o.text("job").split("."))
    for row in queries.jobs(kv, dataset, after=job - 1, limit=1).rows:
        return f"{row.state}: {_numbers(row.tasks)}"
    return "none"


def _dataset(kv: KeyValue, o: Options) -> str:
    detail = queries.dataset(kv, o.text("dataset"))
    if detail is None:
        return "none"
    row = detail.row
    jobs = f"{row.jobs} {'job' if row.jobs == 1 else 'jobs'} ({_numbers(row.job_states)})"
    return f"{row.state}, {jobs}, tasks: {_numbers(row.tasks)}"


def _statistics(kv: KeyValue, o: Options) -> str:
    found = queries.statistics(kv, o.number("statistics"))
    words = [f"{task}.{_tally(name, tally)}" for task, all_ in found.items() for name, tally in all_.items()]
    return "; ".join(words) or "none"


def _tally(name: str, tally: rows.Tally) -> str:
    return (
        f"{name}: count {tally.count}, sum {tally.sum!r}, average {tally.average!r}, "
        f"deviation {tally.standard_deviation!r}, {tally.minimum!r} to {tally.maximum!r}"
    )


def _file(kv: KeyValue, o: Options) -> str:
    ref = o.replicas("file")[0]
    row = queries.file(kv, ref.dataset, ref.job, ref.name)
    if row is None:
        return "none"
    bad = [copy.site for copy in row.copies if not copy.good]
    lost = f", not any more at {', '.join(bad)}" if bad else ""
    sites = ", ".join(row.sites) or "no site"
    outside = "".join(
        f", {copy.url} {'good' if copy.good else 'bad'} by {copy.site}" for copy in row.url_copies
    )
    by = f"{row.dataset}.{row.by_job}.{row.task}@{row.attempt}"
    return f"{row.size_bytes} bytes by {by}, at {sites}{lost}{outside}"


def _site(kv: KeyValue, o: Options) -> str:
    row = queries.site(kv, o.text("site"))
    if row is None:
        return "none"
    fields = ("claimed", "queued", "processing", "copying", "complete", "failures", "losses")
    counts = _numbers({field: getattr(row, field) for field in fields})
    return f"{row.state}{'' if row.alive else ', silent'}: {counts}"


def _node(kv: KeyValue, o: Options) -> str:
    row = queries.node(kv, o.text("node"))
    return "none" if row is None else f"{row.member.role} of {row.member.site} at {row.member.address}"


def _members(kv: KeyValue, o: Options) -> str:
    o.text("members")
    return ", ".join(f"{member.node_id} {member.role}" for member in queries.members(kv)) or "none"


def _person(kv: KeyValue, o: Options) -> str:
    row = queries.person(kv, o.text("person"))
    return "none" if row is None else f"{row.role}, groups: {', '.join(row.groups) or 'none'}"


def _invitation(kv: KeyValue, o: Options) -> str:
    found = queries.invitation(kv, digest(o.text("invitation")))
    return "none" if found is None else f"for {found.site}"


def _certificate(kv: KeyValue, o: Options) -> str:
    return "revoked" if queries.is_revoked(kv, digest(o.text("certificate"))) else "good"


def _audit(kv: KeyValue, o: Options) -> str:
    last = o.text("audit")
    page = queries.audit(kv, limit=1_000).rows
    row = page[-1] if last == "last" else page[int(last) - 1]
    return f"{row.actor}: {row.what} -> {row.outcome}"


def _content(kv: KeyValue, o: Options) -> str:
    found = queries.holders(kv, digest(o.text("content")).hex())
    nodes, sites = ", ".join(found.node_ids) or "none", ", ".join(found.sites) or "none"
    return f"{found.size_bytes} bytes, nodes {nodes}, sites {sites}"


def _transfers(kv: KeyValue, o: Options) -> str:
    detail = queries.dataset(kv, o.text("transfers"))
    rows_ = detail.transfers if detail is not None else ()
    words = [f"{row.from_site} to {row.to_site}: {row.files} files, {row.size_bytes} bytes" for row in rows_]
    return "; ".join(words) or "none"


def _ready(kv: KeyValue, o: Options) -> str:
    o.text("ready")
    words = [
        f"{row.ready} of {needs_text(row.requirements) or 'the usual'}" for row in queries.ready_counts(kv)
    ]
    return "; ".join(words) or "none"


def _sweeps(kv: KeyValue, o: Options) -> str:
    o.text("sweeps")
    return str(queries.sweeps_pending(kv))


def _software(kv: KeyValue, o: Options) -> str:
    name, _, version = o.text("software").partition(":")
    found = queries.software_builds(kv, name, version) if version else queries.software(kv, name).rows
    words = [
        f"{row.version} {row.build.platform.text} of {row.owner}{', retired' if row.retired else ''}"
        for row in found
    ]
    return "; ".join(words) or "none"


def _roots(kv: KeyValue, o: Options) -> str:
    o.text("roots")
    return ", ".join(row.certificate.decode() for row in queries.roots(kv)) or "none"


def _authorities(kv: KeyValue, o: Options) -> str:
    scope = o.text("authorities")
    if scope == "people":
        return ", ".join(f"{node} {der.decode()}" for node, der in queries.people_authorities(kv)) or "none"
    return ", ".join(der.decode() for site, der in queries.issuing_authorities(kv) if site == scope) or "none"


def _unused(kv: KeyValue, o: Options) -> str:
    o.text("unused")
    unused = queries.unused_authorities(kv)
    listed = [der for _, der in queries.issuing_authorities(kv) if sha256(der).digest() in unused]
    return ", ".join(der.decode() for der in listed) or "none"


def _asked(kv: KeyValue, o: Options) -> str:
    o.text("asked")
    return ", ".join(" ".join(filter(None, words)) for words in sorted(queries.asked(kv))) or "nothing"


def _shut_out(kv: KeyValue, o: Options) -> str:
    out, before_ms = queries.shut_out(kv).get(o.text("shut-out"), (False, 0))
    return f"{'out' if out else 'in'}, nothing counts from before {before_ms}"


LOOKS: dict[str, Callable[[KeyValue, Options], str]] = {
    "task": _task,
    "job": _job,
    "dataset": _dataset,
    "statistics": _statistics,
    "file": _file,
    "site": _site,
    "node": _node,
    "members": _members,
    "person": _person,
    "invitation": _invitation,
    "certificate": _certificate,
    "roots": _roots,
    "authorities": _authorities,
    "asked": _asked,
    "unused": _unused,
    "shut-out": _shut_out,
    "audit": _audit,
    "content": _content,
    "transfers": _transfers,
    "ready": _ready,
    "sweeps": _sweeps,
    "software": _software,
}


def look(kv: KeyValue, word: str, o: Options) -> str:
    """The text of one look."""
    if word == "explain":
        return _explain(kv, o)
    if word == "holder":
        return _holder(kv, o)
    name = next((name for name in LOOKS if o.has(name)), None)
    if name is None:
        raise ValueError("look at what? one of " + ", ".join(LOOKS))
    return LOOKS[name](kv, o)
