"""A steering file made whole on the user's own machine: what lies beside it packed, external modules fetched."""

from __future__ import annotations

import hashlib
import tempfile
import tomllib
from pathlib import Path
from typing import Final

import click

from iceprod_cli.output.show import safe
from iceprod_p2p.base.config_external import EXTERNAL, ExternalConfig, check_external
from iceprod_p2p.base.errors import BadInput, ConfigError, IntegrityError
from iceprod_p2p.base.settings import Faults, read_section
from iceprod_p2p.base.toml_lines import key_lines
from iceprod_p2p.client.submission import Packed, pack
from iceprod_p2p.model.steering import Configuration
from iceprod_p2p.modules.external import Bounds, fetch
from iceprod_p2p.modules.outbound import OutboundPolicy, parse_networks
from iceprod_p2p.modules.pinning import Key, Pinned, externals_of, pinned_document

MIB: Final = 1024 * 1024
ALL_BYTES_MAX: Final = 512 * MIB  # Held in memory while the job is laid down.


def packed_whole(document: Configuration, directory: Path, *, site_toml: Path | None) -> Packed:
    """Pack a document as a submission would, its external modules fetched now.

    Where from they may come is as for a node: public addresses, or what ``[external]`` of `site_toml` says.  Errors
    name the module that cannot be had; IntegrityError one that is not what the steering file promises.
    """
    wanted = externals_of(document)
    if not wanted:
        return pack(document, directory)
    config = _external(site_toml)
    policy = OutboundPolicy(
        enabled=config.enabled,
        networks=parse_networks(config.networks),
        hosts=config.hosts,
        ca_file=config.ca_file,
    )
    bounds = Bounds(config.size_mib * MIB, config.timeout_s)
    found: dict[Key, Pinned] = {}
    blobs: dict[str, bytes] = {}
    for key, external in wanted.items():
        src, revision, promised = key
        with tempfile.TemporaryDirectory(prefix="iceprod-external-") as scratch:
            path = Path(scratch) / "content"
            exactly = fetch(external, path, policy=policy, bounds=bounds)
            content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if promised and digest != promised:
            raise IntegrityError(
                f"{src[:200]} has SHA-256 {digest}, not {promised} as the steering file says"
            )
        blobs[digest] = content
        if sum(map(len, blobs.values())) > ALL_BYTES_MAX:
            raise BadInput(f"the external modules have more than {ALL_BYTES_MAX >> 20} MiB together")
        found[key] = Pinned(src, revision, exactly, digest, external.file_name)
        click.echo(f"fetched {safe(found[key].sentence)}", err=True)
    packed = pack(pinned_document(document, found), directory)
    packed.blobs.update(blobs)
    return packed


def _external(path: Path | None) -> ExternalConfig:
    if path is None:
        return ExternalConfig()
    try:
        text = path.read_text()
        table = tomllib.loads(text).get("external", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        raise ConfigError(f"{path} cannot be read: {failure}") from failure
    faults = Faults(key_lines(text))
    values = read_section(EXTERNAL, table, ("external",), faults)
    check_external(values, faults)
    if faults.found:
        raise ConfigError(f"{path} has {len(faults.found)} fault(s):", faults=faults.sentences())
    return ExternalConfig(**values)
