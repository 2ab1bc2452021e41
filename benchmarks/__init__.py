"""What the system costs, measured beside a peer in one run: `make bench` writes the tables into docs/performance.md.

    ledger     commands a second of three real nodes, beside etcd and beside the bare loop (the limit)
    scale      what grows with the number of jobs and tasks, and what must not
    failover   leader killed -> next acknowledged command

Absolute numbers belong to the machine and to what else it does; only ratios of one run mean something.
Not timed by any test.
"""
