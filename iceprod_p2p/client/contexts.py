"""Contexts: which cluster a person speaks to, as whom, and through which nodes.

A context is one directory (0700) with four files, written by `iceprod-node init` for the first administrator and by
`iceprod login` for everybody else::

    context.json     {"cluster": ..., "person": ..., "nodes": [{"node_id", "site", "address", "server_name",
                     "enrol_address"}, ...]}
    person.crt.pem   the person's certificate, then its issuer's
    person.key.pem   the key, made on this machine, 0600
    root.crt.pem     the cluster's root

Named contexts live under the configuration directory (``$ICEPROD_CONFIG`` or ``~/.config/iceprod``), one directory
each; the file ``current`` holds the name in use.  ``$ICEPROD_CONTEXT`` or ``--context`` may name one, or give a
directory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from iceprod_p2p.base.errors import ConfigError, IceProdError, NotAllowed, NotFound
from iceprod_p2p.base.ids import is_name
from iceprod_p2p.security import certificates
from iceprod_p2p.security.trust import descends
from iceprod_p2p.wire.channel import TlsMaterial

REPLACE = "log in again, or import it again from where it was made"
FILE_BYTES_MAX = 1 << 20  # Four small files; anything larger is not a context.
CERTIFICATE_FILE, KEY_FILE, ROOT_FILE, CONTEXT_FILE = (
    "person.crt.pem",
    "person.key.pem",
    "root.crt.pem",
    "context.json",
)


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node that may be called: `address` is host:port, `server_name` the DNS name in its certificate.

    People log in at `enrol_address`; empty where it is not known.
    """

    node_id: str
    site: str
    address: str
    server_name: str
    enrol_address: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """One cluster as seen by one person."""

    name: str
    directory: Path
    cluster: str
    person: str
    nodes: tuple[NodeEntry, ...]
    tls: TlsMaterial


def config_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of named contexts: ``$ICEPROD_CONFIG`` or the user's configuration directory."""
    return Path(environ.get("ICEPROD_CONFIG") or platformdirs.user_config_dir("iceprod"))


def write_context(
    directory: Path,
    *,
    cluster: str,
    person: str,
    nodes: Iterable[NodeEntry],
    certificate_chain_pem: bytes,
    private_key_pem: bytes,
    root_pem: bytes,
) -> None:
    """Write a context into `directory` (made 0700 if absent); the key is never readable by others.

    Raises ConfigError when the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(directory / KEY_FILE, private_key_pem)
        _write(directory / CERTIFICATE_FILE, certificate_chain_pem)
        _write(directory / ROOT_FILE, root_pem)
        save_nodes(directory, cluster=cluster, person=person, nodes=nodes)
    except OSError as failure:
        raise ConfigError(
            f"cannot write the context in {directory}: {failure.strerror}",
            remedy="choose a directory that you may write",
        ) from failure


def save_nodes(directory: Path, *, cluster: str, person: str, nodes: Iterable[NodeEntry]) -> None:
    """Replace the list of nodes of a context, so that it outlives the node it was made with."""
    body = {"cluster": cluster, "person": person, "nodes": [asdict(node) for node in nodes]}
    _write(directory / CONTEXT_FILE, json.dumps(body, indent=2).encode() + b"\n")


def load_context(name_or_directory: str = "", *, environ: Mapping[str, str] = os.environ) -> Context:
    """Return the context named, or the current one; a path (with a ``/``) names a context's directory itself.

    Raises NotFound when there is none, and ConfigError when its files are damaged; both say what to do.
    """
    choice = name_or_directory or environ.get("ICEPROD_CONTEXT", "") or current_name(environ)
    if not choice:
        raise NotFound(
            "no context: this program does not know which cluster to speak to",
            remedy="run `iceprod context import DIR`, or give --context DIR/",
        )
    directory = Path(choice) if "/" in choice else config_directory(environ) / "contexts" / choice
    if not (directory / CONTEXT_FILE).is_file():
        raise NotFound(
            f"there is no context {choice!r} (looked in {directory})",
            remedy="`iceprod context list` shows those there are",
        )
    return _read_context(directory.name if "/" in choice else choice, directory)


def check_identity(context: Context, *, now_ms: int) -> None:
    """Check the person's certificate and key before they are shown: a server that refuses them only hangs up.

    ConfigError when they cannot be read or do not belong together; NotAllowed when the certificate is out of date or
    was not issued for the cluster whose root the context holds.
    """
    tls, where = context.tls, f"the context in {context.directory}"
    try:
        chain = certificates.chain_from_pem(tls.certificate_chain_pem, name=CERTIFICATE_FILE)
        roots = certificates.chain_from_pem(tls.root_pem, name=ROOT_FILE)
        key = certificates.key_from_pem(tls.private_key_pem, name=KEY_FILE)
        belongs = certificates.certificate_key(chain[0]) == key.public_key()
    except IceProdError as fault:
        raise ConfigError(f"{where} cannot be used: {fault.message}", remedy=REPLACE) from fault
    if not belongs:
        raise ConfigError(f"{where} cannot be used: certificate and key are not a pair", remedy=REPLACE)
    if not descends(chain[min(1, len(chain) - 1)], chain[2:], roots):
        raise NotAllowed(
            f"the certificate in {where} is not one of cluster {context.cluster}", remedy=REPLACE
        )
    for certificate in chain:
        if not certificates.is_in_time(certificate, now_ms):
            raise NotAllowed(f"{where}: {certificates.problem_of(certificate, now_ms)}", remedy=REPLACE)


def context_names(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of all contexts, sorted."""
    root = config_directory(environ) / "contexts"
    return sorted(path.parent.name for path in root.glob(f"*/{CONTEXT_FILE}")) if root.is_dir() else []


def current_name(environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the context in use, or an empty string."""
    path = config_directory(environ) / "current"
    return path.read_text().strip() if path.is_file() else ""


def use_context(name: str, *, environ: Mapping[str, str] = os.environ) -> None:
    """Make `name` the context in use; NotFound when there is none of that name."""
    if name not in context_names(environ):
        raise NotFound(f"there is no context {name!r}", remedy="`iceprod context list` shows those there are")
    config_directory(environ).mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(config_directory(environ) / "current", name.encode() + b"\n")


def import_context(source: Path, name: str = "", *, environ: Mapping[str, str] = os.environ) -> str:
    """Copy the context in directory `source` under `name` (its cluster's by default) and return the name.

    The first context is also the one in use from then on.
    """
    context = _read_context(name, source)
    name = name or context.cluster
    if not is_name(name):
        raise ConfigError(f"{name!r} cannot name a context", remedy="use letters, digits, '-' and '_'")
    target = config_directory(environ) / "contexts" / name
    write_context(
        target,
        cluster=context.cluster,
        person=context.person,
        nodes=context.nodes,
        certificate_chain_pem=context.tls.certificate_chain_pem,
        private_key_pem=context.tls.private_key_pem,
        root_pem=context.tls.root_pem,
    )
    if not current_name(environ):
        use_context(name, environ=environ)
    return name


def remove_context(name: str, *, environ: Mapping[str, str] = os.environ) -> None:
    """Forget a context with its key; NotFound when there is none of that name."""
    if name not in context_names(environ):
        raise NotFound(f"there is no context {name!r}", remedy="`iceprod context list` shows those there are")
    shutil.rmtree(config_directory(environ) / "contexts" / name)
    if current_name(environ) == name:
        (config_directory(environ) / "current").unlink()


def _read_context(name: str, directory: Path) -> Context:
    try:
        body = json.loads(_read(directory / CONTEXT_FILE))
        nodes = tuple(
            NodeEntry(
                str(n["node_id"]),
                str(n["site"]),
                str(n["address"]),
                str(n["server_name"]),
                str(n.get("enrol_address", "")),
            )
            for n in body["nodes"]
        )
        tls = TlsMaterial(
            _read(directory / CERTIFICATE_FILE), _read(directory / KEY_FILE), _read(directory / ROOT_FILE)
        )
        return Context(name, directory, str(body["cluster"]), str(body["person"]), nodes, tls)
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise ConfigError(
            f"the context in {directory} cannot be read: {failure}", remedy=REPLACE
        ) from failure


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return content


def _write(path: Path, content: bytes) -> None:
    # A name of its own: two programs of one person may note the cluster's nodes at once.
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
