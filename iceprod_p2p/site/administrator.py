"""The first administrator's context in the founder's data directory: its certificate is made anew like the node's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.client.contexts import CONTEXT_FILE, load_context, write_context
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import (
    chain_from_pem,
    expires_ms,
    fingerprint,
    is_signed_by,
    key_from_pem,
    make_request,
    renewal_due_ms,
)
from iceprod_p2p.site.issued import FILE, IssuedCertificates
from iceprod_p2p.site.node_keys import AUTHORITY

DIRECTORY: Final = "admin"
LIFETIME_MS: Final = 365 * 86_400_000  # Others log in for a day at a time.
log = get_logger("administrator")


def renew_administrator(
    data_dir: Path, people: Authority, root_pem: bytes, *, now_ms: int, stands: Callable[[str], bool]
) -> None:
    """Make the certificate anew at half of its life, or when another authority vouches for people here; blocking.

    Nothing is done without such a context, for a certificate that has ended, or for a person of whom `stands` says
    that they may do nothing any more.
    """
    directory = data_dir / DIRECTORY
    if not (directory / CONTEXT_FILE).exists():
        return
    try:
        context = load_context(f"{directory}/")
        leaf = chain_from_pem(context.tls.certificate_chain_pem)[0]
        key = key_from_pem(context.tls.private_key_pem, name=f"the key in {directory}")
    except IceProdError as fault:
        log.warning("the first administrator's context cannot be read", why=fault.message)
        return
    ours = is_signed_by(leaf, people.certificate)
    if ours and now_ms < renewal_due_ms(leaf) and context.tls.root_pem == root_pem:
        return
    if expires_ms(leaf) < now_ms or context.cluster != people.cluster or not stands(context.person):
        return
    chain_pem = context.tls.certificate_chain_pem
    if not ours or now_ms >= renewal_due_ms(leaf):
        uri = identity_uri(IdentityKind.PERSON, context.person, site="", cluster=people.cluster)
        request = make_request(key, uri)
        kind, person = IdentityKind.PERSON, context.person
        made = people.issue(request, kind=kind, name=person, now_ms=now_ms, lifetime_ms=LIFETIME_MS)
        IssuedCertificates(data_dir / AUTHORITY / FILE).note(
            person, fingerprint(made), expires_ms=expires_ms(made), now_ms=now_ms
        )
        chain_pem = people.chain(made)
    write_context(
        directory,
        cluster=context.cluster,
        person=context.person,
        nodes=context.nodes,
        certificate_chain_pem=chain_pem,
        private_key_pem=context.tls.private_key_pem,
        root_pem=root_pem,
    )
    log.info("certificate of the first administrator renewed", person=context.person)
