"""Which rule answers which command: one row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from iceprod_p2p.ledger import commands as c
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
from iceprod_p2p.ledger.outcome import Outcome
from iceprod_p2p.ledger.rules import (
    authorities,
    blobs,
    claims,
    clock,
    datasets,
    files,
    jobs,
    members,
    people,
    releases,
    replacing,
    sites,
    software,
    tasks,
    trust,
)
from iceprod_p2p.ledger.rules.asked import Asked
from iceprod_p2p.ledger.tables import Tables

Rule = Callable[[Tables, Any, Asked], Outcome]  # The second argument is the command that the row names.

RULES: Final[dict[type, Rule]] = {
    c.FoundCluster: members.found_cluster,
    c.AddNode: members.add_node,
    c.Invite: members.invite,
    c.PromoteMember: members.promote_member,
    c.RemoveMember: members.remove_member,
    c.RenewNode: members.renew_node,
    c.SetPerson: people.set_person,
    c.RevokeCertificate: members.revoke_certificate,
    c.Tick: clock.tick,
    c.SetSettings: clock.set_settings,
    ReplaceNode: replacing.replace_node,
    RestoreCluster: replacing.restore_cluster,
    AddAuthority: trust.add_authority,
    RetireAuthority: trust.retire_authority,
    EndAuthority: authorities.end_authority,
    AskRenewal: trust.ask_renewal,
    RemovePerson: people.remove_person,
    c.AnnounceVersions: releases.announce_versions,
    c.RaiseVersion: releases.raise_version,
    c.SubmitDataset: datasets.submit,
    c.AddJobs: datasets.add_jobs,
    c.ControlDataset: datasets.control_dataset,
    c.ControlTasks: jobs.control_tasks,
    c.SetDataset: datasets.set_dataset,
    c.ControlSite: sites.control_site,
    c.Heartbeat: sites.heartbeat,
    c.Claim: claims.claim,
    c.QueueTasks: tasks.queue_tasks,
    c.StartTasks: tasks.start_tasks,
    c.CopyTask: tasks.copy_task,
    c.FinishTask: tasks.finish_task,
    c.FailTask: tasks.fail_task,
    c.GiveBack: tasks.give_back,
    c.RecordReplicas: files.record_replicas,
    c.RecordVerification: files.record_verification,
    c.RecordBlob: blobs.record_blob,
    PublishSoftware: software.publish,
    RetireSoftware: software.retire,
    DropBlobs: blobs.drop_blobs,
    ForgetBlobs: blobs.forget_blobs,
}
