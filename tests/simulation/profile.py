"""What one seed is like: how many nodes, which network, which disks, which faults, how much work.

Drawn so that histories differ in kind, not only in detail: each has its own subset of faults ("swarm testing",
Groce et al. 2012), because some failures only show while others are absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iceprod_p2p.raft.settings import RaftSettings
from tests.simulation.world import between

FAULTS = (
    "kill one",
    "kill leader",
    "kill minority",
    "kill majority",
    "kill all",
    "power cut",
    "pause",
    "pause leader",
    "isolate one",
    "isolate leader",
    "split",
    "bridge",
    "ring",
    "deaf",
    "mute",
    "one way",
    "half open",
    "flap",
    "slow link",
    "lossy link",
    "narrow link",
    "slow disk",
    "full disk",
    "broken disk",
    "damage",
    "odd member",
    "hand over",
    "members",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of history."""

    production: bool  # The job ledger with its sites and pilots; otherwise counters.
    grace_s: float  # How long a site may be silent.
    voters: int
    observers: int
    delay_s: float
    jitter_s: float
    loss: float
    double: float
    straggle: float
    in_order: bool
    rate_bytes_per_s: float
    fsync_s: float
    clock_drift: float
    faults: tuple[str, ...]
    fault_interval_s: float
    faults_for_s: float
    settle_s: float  # How long after the last fault everything may take to be right again.
    clients: int
    client_pause_s: float
    command_bytes: int  # How large the commands on counters are.
    settings: RaftSettings

    def describe(self) -> str:
        """Return one line for people."""
        kind = "production" if self.production else "counters"
        order = "in" if self.in_order else "out of"
        return (
            f"{kind}, {self.voters} voters, {self.observers} observers; {self.delay_s * 1e3:.1f} ms + "
            f"{self.jitter_s * 1e3:.1f} ms, loss {self.loss:.1%}, double {self.double:.1%}, "
            f"late {self.straggle:.1%}, {order} order, {self.rate_bytes_per_s / 1e3:.0f} kB/s; "
            f"fsync {self.fsync_s * 1e3:.1f} ms, log kept {self.settings.log_keep_entries}; "
            f"a fault every {self.fault_interval_s:.1f} s for {self.faults_for_s:.0f} s: {', '.join(self.faults)}"
        )


def draw(random: Random) -> Profile:
    """Draw a profile."""
    chance = random.random
    delay_s = random.choice((0.0003, 0.0005, 0.002, 0.01, 0.04, 0.08, 0.15, 0.25))
    rate = random.choice((1e9, 1e7, 4e5, 5e4))
    pace = max(
        random.choice((1.0, 1.0, 2.0)), delay_s / 0.04
    )  # Far nodes need longer time-outs: the operator's choice.
    faults = tuple(fault for fault in FAULTS if chance() < 0.35) or ("kill leader",)
    faults_for_s = (12 + 20 * chance()) * min(pace, 3.0)
    return Profile(
        production=chance() < 0.7,
        grace_s=random.choice((3.0, 10.0)) * pace,
        voters=random.choice((3, 3, 3, 3, 5, 5, 1)),
        observers=random.choice((0, 0, 0, 1, 2)),
        delay_s=delay_s,
        jitter_s=random.choice((0.0, 0.1, 0.5, 2.0)) * delay_s,
        loss=random.choice((0.0, 0.0, 0.001, 0.02)),
        double=random.choice((0.0, 0.0, 0.02, 0.1)),
        straggle=random.choice((0.0, 0.0, 0.002, 0.02)),
        in_order=chance() < 0.6,
        rate_bytes_per_s=rate,
        fsync_s=random.choice((0.0, 0.0005, 0.002, 0.01)),
        clock_drift=random.choice((0.0, 1e-4, 1e-2)),
        faults=faults,
        fault_interval_s=between(random, 0.7, 8.0) * pace,
        faults_for_s=faults_for_s,
        settle_s=180.0 * pace,
        clients=random.choice((1, 2, 4, 8)),
        client_pause_s=random.choice((0.0, 0.02, 0.1, 0.5)),
        command_bytes=min(random.choice((0, 0, 0, 200, 4_000, 20_000)), int(rate / 500)),
        settings=_settings(random, pace),
    )


def _settings(random: Random, pace: float) -> RaftSettings:
    keep = random.choice((4, 16, 64, 8_192))
    return RaftSettings(
        heartbeat_s=random.choice((0.1, 0.15, 0.19)) * pace,
        election_min_s=0.6 * pace,
        election_max_s=1.2 * pace,
        quorum_silence_s=0.55 * pace,
        resend_s=random.choice((0.3, 1.0)) * pace,
        window_messages=random.choice((1, 4, 64)),
        rounds_in_flight=random.choice((1, 2, 4)),
        apply_entries_max=random.choice((3, 256)),
        log_keep_entries=keep,
        compare_entries=random.choice((4, 16, 64)),
        compact_entries_max=random.choice((1, 8, 512)),
        log_cache_bytes=random.choice((256, 16 << 20)),
        snapshot_page_bytes=random.choice((128, 1_024, 128 << 10)),
        snapshot_pages_in_flight=random.choice((1, 4)),
        snapshot_retry_s=random.choice((0.5, 2.0)) * pace,
    )
