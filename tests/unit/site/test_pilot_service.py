"""What a pilot meets at a node, over the real ledger's rules: orders once, reports once, stale ones
stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import BadInput, NotAllowed, NotFound, Refused, Unavailable
from iceprod_p2p.ledger.commands import (
    Claim,
    ControlSite,
    ControlTasks,
    RemoveMember,
    SiteVerb,
    StartTasks,
    TaskRef,
    Verb,
)
from iceprod_p2p.ledger.reading import see_place, see_task
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.model.resources import Offer
from iceprod_p2p.model.states import TaskState
from iceprod_p2p.security.certificates import chain_from_pem, make_request, new_key, to_der, to_pem
from iceprod_p2p.security.identity import identity_of
from iceprod_p2p.site.cluster_facts import ClusterFacts
from iceprod_p2p.site.cluster_view import ClusterView
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.grid_jobs import GridJobBook
from iceprod_p2p.site.lost_pilots import NOT_RECEIVED_S, LostPilots
from iceprod_p2p.site.node_keys import NodeKeys, new_authority
from iceprod_p2p.site.orders import Orders
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.site.pilot_board import PilotBoard
from iceprod_p2p.site.pilot_service import PilotService, PilotTimes
from iceprod_p2p.site.site_calls import SiteCalls, installed_methods
from iceprod_p2p.site.stock import Stock
from iceprod_p2p.store.blobs import BlobStore
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from tests.unit.site.one_ledger import CLUSTER, NOW_MS, OneLedger, root_of


@dataclass
class Caller:
    """A pilot as gRPC would show it: its certificate, TLS 1.3."""

    certificate_pem: bytes

    def auth_context(self) -> Mapping[str, Any]:
        return {"x509_pem_cert": [self.certificate_pem], "ssl_tls_version": [b"TLSv1.3"]}


@dataclass
class World:
    """One node's services around one ledger."""

    ledger: OneLedger
    keys: NodeKeys
    clock: ManualClock
    service: PilotService
    stock: Stock
    board: PilotBoard
    blobs: BlobStore
    lost: LostPilots
    cluster: ClusterView
    hungry: list[None]
    exchange_id: int = field(default=0)

    def pilot(self, name: str = "p-1") -> Caller:
        key = new_key()
        uri = identity_uri(IdentityKind.PILOT, name, site=self.keys.site, cluster=CLUSTER)
        certificate = self.keys.authority.issue(
            make_request(key, uri), kind=IdentityKind.PILOT, name=name, now_ms=NOW_MS
        )
        return Caller(to_pem(certificate))

    def claim(self, slots: int) -> None:
        """Claim for the site and read the stock anew."""
        self.ledger.must(Claim("madison", (Offer("cpu", slots),), slots))
        self.stock.refresh()

    async def exchange(self, caller: Caller, **fields: Any) -> pilot_pb2.ExchangeReply:
        """Call with a number of its own, unless one is given."""
        self.exchange_id += 1
        fields.setdefault("exchange_id", self.exchange_id)
        request = pilot_pb2.ExchangeRequest(host="w1", resource_class="cpu", **fields)
        return await self.service.Exchange(request, caller)

    def state(self, ref: common_pb2.TaskRef) -> tuple[TaskState, int]:
        tables = Tables(self.ledger.kv)
        ds = tables.dataset(ref.dataset)
        assert ds is not None
        record = see_task(tables, see_place(tables, ds, ref.job, ref.task))
        return record.state, record.attempt


def free(slots: int) -> pilot_pb2.Free:
    return pilot_pb2.Free(
        slots=slots, cpus=slots, memory_mib=2_000 * slots, disk_mib=2_000 * slots, walltime_s=86_400
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock(wall_ms=NOW_MS)
    ledger = OneLedger()
    keys = ledger.found()
    roots = root_of(keys)
    facts = ClusterFacts(ledger, cluster=CLUSTER, roots=lambda: roots, clock=clock)  # type: ignore[arg-type]
    cluster = ClusterView(ledger, facts, cluster=CLUSTER, clock=clock)  # type: ignore[arg-type]
    board, stock = PilotBoard(clock), Stock(lambda: cluster.claimed("madison"))
    blobs = BlobStore(tmp_path / "blobs")
    executor = ThreadPoolExecutor(1)
    peers = Peers(node_id="madison-1", tls=lambda: keys.tls, known=cluster.nodes)
    files = FileService(
        blobs, peers, executor, holders=lambda sha256: cluster.holders(sha256, but="madison-1")
    )
    hungry: list[None] = []
    orders = Orders(
        site="madison",
        stock=stock,
        consensus=ledger,
        cluster=cluster,
        signer=lambda: keys.signer,
        lifetime_ms=3_600_000,
        system={"scratch": "/tmp"},
        environment={"LANG": "C"},
        clock=clock,
    )
    service = PilotService(
        site="madison",
        board=board,
        stock=stock,
        orders=orders,
        files=files,
        consensus=ledger,
        cluster=cluster,
        authority=lambda: keys.authority,
        root_pem=lambda: keys.root_pem,
        times=PilotTimes(2.0, 3_600_000, long_poll_s=0.2),
        clock=clock,
        only_gpu_tasks=lambda name: False,
        calls=SiteCalls(site="madison", node_id="madison-1", cluster=cluster, executor=executor, clock=clock),
        resolved=lambda files: None,
        hungry=lambda: hungry.append(None),
    )
    lost = LostPilots(
        site="madison",
        node_id="madison-1",
        book=GridJobBook(tmp_path / "pilots"),
        board=board,
        consensus=ledger,
        cluster=cluster,
        clock=clock,
    )
    yield World(ledger, keys, clock, service, stock, board, blobs, lost, cluster, hungry)
    executor.shutdown()


def finished(order: pilot_pb2.Order, report_id: int, **fields: Any) -> pilot_pb2.Report:
    return pilot_pb2.Report(
        report_id=report_id, ref=order.ref, passkey=order.passkey, finished=pilot_pb2.Finished(**fields)
    )


def running(order: pilot_pb2.Order) -> pilot_pb2.Running:
    return pilot_pb2.Running(ref=order.ref, passkey=order.passkey, phase="running")


async def test_a_pilot_is_given_what_fits_and_the_ledger_knows_first(world: World) -> None:
    world.ledger.submit(jobs=5)
    world.claim(3)
    reply = await world.exchange(world.pilot(), free=free(2))
    assert len(reply.orders) == 2
    assert [world.state(order.ref)[0] for order in reply.orders] == [TaskState.PROCESSING] * 2
    order = reply.orders[0]
    assert (order.task_name, order.jobs, order.seed, order.system["scratch"]) == ("work", 5, 7, "/tmp")
    assert reply.nodes[0].server_name == "madison-1.madison.ice"


async def test_a_repeated_exchange_gives_the_same_orders_once(world: World) -> None:
    world.ledger.submit(jobs=5)
    world.claim(4)
    caller = world.pilot()
    first = await world.exchange(caller, free=free(2), exchange_id=77)
    again = await world.exchange(caller, free=free(2), exchange_id=77)
    assert first.orders == again.orders
    assert len(world.stock.tasks) == 2


async def test_orders_whose_answer_was_lost_come_with_the_repeat(world: World) -> None:
    world.ledger.submit(jobs=5)
    world.claim(4)
    caller = world.pilot()
    world.ledger.lose_answers = True
    with pytest.raises(Unavailable):
        await world.exchange(caller, free=free(2), exchange_id=78)
    world.ledger.lose_answers = False
    other = await world.exchange(world.pilot("p-2"), free=free(4))
    again = await world.exchange(caller, free=free(2), exchange_id=78)
    given = [(order.ref.job) for order in (*again.orders, *other.orders)]
    assert sorted(given) == [0, 1, 2, 3]


async def test_a_result_counts_once_however_often_it_is_reported(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    report = finished(order, 1, statistics={"events": 5.0})
    for _ in range(2):
        reply = await world.exchange(caller, reports=[report])
        assert [(ack.report_id, ack.accepted) for ack in reply.acks] == [(1, True)]
    assert world.state(order.ref)[0] is TaskState.COMPLETE


async def test_a_reset_makes_the_attempt_stop_and_its_report_refused(world: World) -> None:
    number = world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    world.ledger.must(ControlTasks(number, Verb.RESET, 0, 0), actor="person:ada")
    reply = await world.exchange(caller, running=[running(order)])
    assert list(reply.stop) == [order.ref]
    reply = await world.exchange(caller, reports=[finished(order, 1)])
    assert [(ack.accepted, ack.refusal) for ack in reply.acks] == [(False, "stale_attempt")]


async def test_another_pilots_passkey_is_refused_at_the_edge(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    (order,) = (await world.exchange(world.pilot(), free=free(1))).orders
    reply = await world.exchange(world.pilot("thief"), reports=[finished(order, 1)])
    assert reply.acks[0].refusal == "passkey_holder"
    flipped = pilot_pb2.Report()
    flipped.CopyFrom(finished(order, 2))
    flipped.passkey = order.passkey[:-1] + bytes((order.passkey[-1] ^ 1,))
    reply = await world.exchange(world.pilot(), reports=[flipped])
    assert reply.acks[0].refusal.startswith("passkey_")
    assert world.state(order.ref)[0] is TaskState.PROCESSING


async def test_a_result_whose_files_are_not_here_is_not_taken_until_they_are(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    content = b"events"
    entry = common_pb2.FileEntry(
        name="out.npz", size_bytes=6, sha256=hashlib.sha256(content).hexdigest(), kind="job_temp"
    )
    with pytest.raises(Unavailable):
        await world.exchange(caller, reports=[finished(order, 1, files=[entry])])
    assert world.state(order.ref)[0] is TaskState.PROCESSING
    world.blobs.put_bytes(content)
    reply = await world.exchange(caller, reports=[finished(order, 1, files=[entry])])
    assert reply.acks[0].accepted
    resolved = await world.service.Resolve(
        pilot_pb2.ResolveRequest(dataset=order.ref.dataset, job=0, names=["out.npz", "none"]), caller
    )
    assert [(f.found, list(f.sites)) for f in resolved.files] == [(True, ["madison"]), (False, [])]


@pytest.mark.parametrize(
    "statistics", [{"x": float("nan")}, {"x": float("inf")}, {"": 1.0}, {"y" * 200: 1.0}]
)
async def test_a_result_with_impossible_statistics_is_refused_in_words(
    world: World, statistics: dict[str, float]
) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    reply = await world.exchange(caller, reports=[finished(order, 1, statistics=statistics)])
    assert (reply.acks[0].accepted, reply.acks[0].refusal) == (False, "malformed")


async def test_reports_wait_when_the_ledger_is_down_and_nothing_is_acknowledged(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    world.ledger.down = True
    with pytest.raises(Unavailable):
        await world.exchange(caller, reports=[finished(order, 1)])
    world.ledger.down = False
    assert (await world.exchange(caller, reports=[finished(order, 1)])).acks[0].accepted


async def test_a_draining_site_gives_nothing_and_tells_its_pilots(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    world.ledger.must(ControlSite("madison", SiteVerb.DRAIN), actor="person:ada")
    world.clock.advance(1.0)
    reply = await world.exchange(world.pilot(), free=free(1))
    assert (reply.drain, len(reply.orders)) == (True, 0)


async def test_an_idle_pilot_waits_for_work_and_gets_it_as_soon_as_it_is_claimed(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.service._times = replace(world.service._times, long_poll_s=200.0)
    call = asyncio.create_task(world.exchange(world.pilot(), free=free(1)))
    async with asyncio.timeout(60):
        while not world.hungry:
            await asyncio.sleep(0.01)
    assert not call.done()
    world.claim(1)
    assert len((await asyncio.wait_for(call, 60)).orders) == 1


async def test_an_order_that_never_reached_its_pilot_is_given_back(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    for _ in range(3):
        world.clock.advance(NOT_RECEIVED_S * 0.6)
        await world.exchange(caller, free=pilot_pb2.Free())
        await world.lost.step()
    world.clock.advance(NOT_RECEIVED_S * 0.6)
    await world.exchange(caller, free=pilot_pb2.Free())
    await world.lost.step()
    state, attempt = world.state(order.ref)
    assert (state, attempt) == (TaskState.READY, order.ref.attempt + 1)


async def test_an_order_that_a_pilot_works_on_is_never_given_back(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    for _ in range(5):
        world.clock.advance(NOT_RECEIVED_S)
        await world.exchange(caller, running=[running(order)])
        await world.lost.step()
    assert world.state(order.ref)[0] is TaskState.PROCESSING


async def test_attempts_of_other_sites_are_vouched_for(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    world.service._site = "geneva"  # The same pilot now speaks to a node of another site.
    reply = await world.exchange(caller, running=[running(order)], free=free(1))
    ref = TaskRef(order.ref.dataset, order.ref.job, order.ref.task, order.ref.attempt)
    assert world.board.vouched(within_s=60) == (ref,)
    assert not reply.orders and not reply.stop


async def test_a_host_that_is_shut_out_costs_no_log_entry_with_each_call(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    world.ledger.tick(10**12)  # Leases have ended: the start will be refused.
    for _ in range(5):
        await world.exchange(caller, free=free(1))
    assert sum(isinstance(command, StartTasks) for command in world.ledger.proposed) <= 1


async def test_a_renewed_certificate_keeps_the_pilots_name_and_needs_its_own_request(world: World) -> None:
    caller = world.pilot()
    uri = identity_uri(IdentityKind.PILOT, "p-1", site="madison", cluster=CLUSTER)
    reply = await world.service.Renew(pilot_pb2.RenewRequest(csr_pem=make_request(new_key(), uri)), caller)
    assert reply.lifetime_s == 3_600
    other = identity_uri(IdentityKind.PILOT, "p-2", site="madison", cluster=CLUSTER)
    with pytest.raises(NotAllowed):
        await world.service.Renew(pilot_pb2.RenewRequest(csr_pem=make_request(new_key(), other)), caller)


async def test_no_other_sites_pilot_becomes_one_of_a_site_that_hands_out_credentials(world: World) -> None:
    """With the certificate that it would get, the site's secrets for its storages would be its own."""
    assert world.keys.root is not None
    desy = new_authority(world.keys.root, "desy", now_ms=NOW_MS)
    there = identity_uri(IdentityKind.PILOT, "p-1", site="desy", cluster=CLUSTER)
    certificate = desy.issue(
        make_request(new_key(), there), kind=IdentityKind.PILOT, name="p-1", now_ms=NOW_MS
    )
    stranger = Caller(to_pem(certificate))
    here = identity_uri(IdentityKind.PILOT, "p-1", site="madison", cluster=CLUSTER)
    request = pilot_pb2.RenewRequest(csr_pem=make_request(new_key(), here))
    assert (await world.service.Renew(request, stranger)).chain_pem, (
        "a pilot whose own nodes are down goes on"
    )
    world.service._credentials = "/site/transfers.toml"
    with pytest.raises(Unavailable, match="makes none of desy"):
        await world.service.Renew(request, stranger)
    with pytest.raises(NotAllowed, match="same site"):
        await world.service.GetCredentials(pilot_pb2.CredentialsRequest(), stranger)
    assert (await world.service.Renew(request, world.pilot())).chain_pem


@pytest.mark.parametrize("end", [ControlSite("desy", SiteVerb.BAN), RemoveMember("desy-1")])
async def test_a_pilot_that_another_site_renewed_ends_with_its_own_site(world: World, end: Any) -> None:
    """Renewed twice, too: its own site stands in every certificate that it gets."""
    assert world.keys.root is not None
    desy = new_authority(world.keys.root, "desy", now_ms=NOW_MS)
    world.ledger.admit("desy-1", "desy", authority=to_der(desy.certificate))
    there = identity_uri(IdentityKind.PILOT, "p-1", site="desy", cluster=CLUSTER)
    here = identity_uri(IdentityKind.PILOT, "p-1", site="madison", cluster=CLUSTER)
    csr = make_request(new_key(), there)
    certificate = desy.issue(csr, kind=IdentityKind.PILOT, name="p-1", now_ms=NOW_MS)
    request = pilot_pb2.RenewRequest(csr_pem=make_request(new_key(), here))
    first = await world.service.Renew(request, Caller(to_pem(certificate)))
    second = await world.service.Renew(request, Caller(to_pem(chain_from_pem(first.chain_pem)[0])))
    renewed = [identity_of(chain_from_pem(reply.chain_pem)[0]) for reply in (first, second)]
    assert [(identity.site, identity.home) for identity in renewed] == [("madison", "desy")] * 2
    own = identity_of(chain_from_pem((await world.service.Renew(request, world.pilot())).chain_pem)[0])
    assert (own.site, own.home) == ("madison", "")

    world.clock.advance(1)
    for identity in (*renewed, own):
        world.cluster.trust().admit(identity, now_ms=NOW_MS)
    world.ledger.must(end, actor="person:ada")
    world.clock.advance(1)  # Facts are a quarter of a second old at most.
    for identity in renewed:
        with pytest.raises(NotAllowed, match="site desy, to which pilot:madison/p-1 belongs"):
            world.cluster.trust().admit(identity, now_ms=NOW_MS)
    world.cluster.trust().admit(own, now_ms=NOW_MS)


async def test_an_exchange_that_is_too_large_is_refused(world: World) -> None:
    with pytest.raises(BadInput):
        await world.exchange(world.pilot(), reports=[pilot_pb2.Report()] * 2_000)


async def called(world: World, caller: Any, order: pilot_pb2.Order, method: str, argument: Any = None) -> Any:
    request = pilot_pb2.SiteCall(
        ref=order.ref, passkey=order.passkey, method=method, argument=msgpack.packb(argument)
    )
    return msgpack.unpackb((await world.service.CallSite(request, caller)).value)


async def test_a_running_module_asks_its_site_and_strangers_are_refused(world: World) -> None:
    number = world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    facts = await called(world, caller, order, "facts")
    assert (facts["site"], facts["methods"]) == ("madison", ["facts", "find_files"])
    with pytest.raises(NotFound, match="no method 'other'"):
        await called(world, caller, order, "other")
    with pytest.raises(Refused, match="another"):
        await called(world, world.pilot("thief"), order, "facts")
    with pytest.raises(BadInput, match="more than the 49152"):
        await called(world, caller, order, "facts", "x" * 50_000)
    with pytest.raises(Refused, match="calls a second"):
        for _ in range(200):
            await called(world, caller, order, "facts")
    world.ledger.must(ControlTasks(number, Verb.RESET, 0, 0), actor="person:ada")
    with pytest.raises(Refused, match="no longer the pilot's"):
        await called(world, caller, order, "facts")


async def test_a_site_adds_methods_by_entry_point(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages"
    (package / "site_own-1.0.dist-info").mkdir(parents=True)
    (package / "site_own-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: site-own\nVersion: 1.0\n"
    )
    (package / "site_own-1.0.dist-info" / "entry_points.txt").write_text(
        "[iceprod_p2p.site_methods]\ntape.stage = site_own:stage\nbroken = site_own:absent\n"
        "fails = site_own:fails\nfacts = site_own:stage\n"
    )
    (package / "site_own.py").write_text(
        "def stage(call, argument):\n    return [call.site, call.job, argument['file']]\n"
        "def fails(call, argument):\n    raise ValueError('no tape')\n"
    )
    monkeypatch.syspath_prepend(str(package))
    calls = world.service._calls
    calls._installed = installed_methods(reserved=calls._methods)
    assert calls.methods == ("facts", "fails", "find_files", "tape.stage")
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    assert await called(world, caller, order, "tape.stage", {"file": "x"}) == ["madison", 0, "x"]
    with pytest.raises(Refused, match="fails failed: ValueError: no tape"):
        await called(world, caller, order, "fails")


async def test_progress_is_told_while_it_runs(world: World) -> None:
    world.ledger.submit(jobs=1)
    world.claim(1)
    caller = world.pilot()
    (order,) = (await world.exchange(caller, free=free(1))).orders
    said = running(order)
    said.progress, said.note = 0.25, "a quarter"
    await world.exchange(caller, running=[said])
    ref = TaskRef(order.ref.dataset, order.ref.job, order.ref.task, order.ref.attempt)
    assert world.board.progress(ref) == (0.25, "a quarter")


async def test_what_follows_a_dataset_finds_the_files_of_all_its_jobs(world: World) -> None:
    world.ledger.submit(jobs=2, closing=(TaskShape("merge"),))
    caller = world.pilot()
    for job in range(2):
        world.claim(1)
        (order,) = (await world.exchange(caller, free=free(1), exchange_id=100 + job)).orders
        content = b"events %d" % job
        world.blobs.put_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        entry = common_pb2.FileEntry(name="out.npz", size_bytes=8, sha256=sha256, kind="job_temp")
        await world.exchange(caller, reports=[finished(order, 1 + job, files=[entry])])
    world.claim(1)
    (order,) = (await world.exchange(caller, free=free(1), exchange_id=110)).orders
    assert (order.task_name, order.follows, order.jobs) == ("merge", 1, 2)
    request = pilot_pb2.FindFilesRequest(dataset=order.ref.dataset, job=0, pattern="*.npz")
    found = (await world.service.FindFiles(request, caller)).files
    assert [(f.dataset, f.job, f.file.name) for f in found] == [(1, 0, "out.npz"), (1, 1, "out.npz")]
    answer = await called(world, caller, order, "find_files", {"pattern": "o*"})
    assert [file["job"] for file in answer["files"]] == [0, 1] and answer["after"] is None
