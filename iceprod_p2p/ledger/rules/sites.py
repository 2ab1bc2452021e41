"""Sites: one small heartbeat renews all leases of a site; silence beyond the grace takes its tasks back.

A pilot that lost its home site reports to another node; that node's heartbeat vouches for the attempt, and
such attempts outlive their site's silence.
"""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import ControlSite, Heartbeat, SiteVerb
from iceprod_p2p.ledger.limits import PAGE_RECORDS
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, at_least, find_site
from iceprod_p2p.ledger.rules.leases import vouch
from iceprod_p2p.ledger.rules.sweeping import BAN, add_sweep
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.states import SiteState


def renew_site(t: Tables, name: str, site: r.SiteRecord, **changes: object) -> r.SiteRecord:
    """Renew all leases of a site that was heard of now; its timer is moved only when it is due."""
    cluster = t.cluster
    assert cluster is not None
    until_ms = t.now_ms + cluster.site_grace_ms
    if not changes and site.timer_ms and (site.alive_until_ms, site.heard_ms) == (until_ms, t.now_ms):
        return site  # It was heard of at this very moment already.
    if site.timer_ms == 0:
        changes["timer_ms"] = until_ms
        t.kv.put(keys.other_timer(until_ms, keys.SITE_TIMER, name.encode()), b"")
    renewed = msgspec.structs.replace(site, alive_until_ms=until_ms, heard_ms=t.now_ms, **changes)
    t.sites.put(keys.by_name(keys.SITE, name), renewed)
    return renewed


def heartbeat(t: Tables, command: Heartbeat, asked: Asked) -> Outcome:
    """Renew all leases of a site, and the attempts of other sites that its node vouches for."""
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    node = t.nodes.get(keys.by_name(keys.NODE, command.node_id))
    if node is None:
        return Refused(Refusal.NOT_FOUND, f"there is no node {command.node_id!r}")
    if node.member.site != command.site:
        return Refused(
            Refusal.WRONG_SITE, f"node {command.node_id} belongs to {node.member.site}, not {command.site}"
        )
    if len(command.vouched) > PAGE_RECORDS:
        return Refused(Refusal.LIMIT, f"at most {PAGE_RECORDS} attempts may be vouched for at once")
    counts = {**site.counts, command.node_id: command.counts}
    renewed = renew_site(t, command.site, site, counts=dict(sorted(counts.items())))
    for ref in command.vouched:
        vouch(t, ref, renewed.alive_until_ms)
    return Applied()


def control_site(t: Tables, command: ControlSite, asked: Asked) -> Outcome:
    """Drain, resume or ban a site; a ban takes back everything it holds, in pages."""
    refusal = at_least(t, asked, Role.OPERATOR)
    if refusal is not None:
        return refusal
    site = t.site(command.site)
    if site is None:
        return Refused(Refusal.NOT_FOUND, f"there is no site {command.site!r}")
    state = {
        SiteVerb.DRAIN: SiteState.DRAINING,
        SiteVerb.RESUME: SiteState.ACTIVE,
        SiteVerb.BAN: SiteState.BANNED,
    }[command.verb]
    if state is site.state:
        return Applied((f"site {command.site} is {state} already",))
    if state is SiteState.DRAINING and site.state is SiteState.BANNED:
        return Refused(Refusal.WRONG_STATE, f"site {command.site} is banned: resume it first")
    t.sites.put(
        keys.by_name(keys.SITE, command.site),
        msgspec.structs.replace(site, state=state, reason=command.reason),
    )
    if state is SiteState.BANNED:
        add_sweep(t, r.SweepRecord(BAN, site.number))
    return Applied((f"site {command.site} {state}",))
