"""Consensus: PySyncObj 0.3.17 made safe.  Everybody else uses `node.RaftNode` alone.

What stays PySyncObj's (`syncobj.py`, the only file with its private names): the state of a node (role,
term, vote, leader, log, commit and applied index, election deadline), the change of roles, becoming a
leader with its no-op entry, the step of term and vote into the journal, the queue of commands and its way
into the leader's log.

What is overridden, each as a whole: the tick, the receive rules, the sending loop, applying, compaction,
dumps, the random time-out.  Its journal and transport seams are ours, and its pickle is replaced by a
codec for plain data.

    syncobj       the one door to PySyncObj
    journal       log, term and vote, in the tick's transaction
    replication   the receive rules and the leader's view of a follower, pure
    elections     votes, pre-votes, stickiness, quorum check
    leading       heartbeats, windows of entries, the commit rule, handing over
    following     what a follower does with a leader's messages
    proposals     callers, forwarding, rounds, repeats
    reads         linearizable reads without an entry
    snapshots     the tables, for those whose entries are gone
    comparing     whose state is right when two differ: the majority's
    promises      sessions: an old copy of a data directory never counts again
    engine        one tick: gather, one commit, release
    machine       the ledger as the engine's state machine
    founding      a new node's state
    transport     links over gRPC with mutual TLS
    callers       who waits for which outcome, on the event loop
    node          the thread, propose, view, barrier

Deliberately absent: threads, clocks and sockets in the engine (the simulation drives it), a retry of a failed
commit, replicated methods, dump files, PySyncObj's own membership entries, read-only mode and chunked
entries.
"""
