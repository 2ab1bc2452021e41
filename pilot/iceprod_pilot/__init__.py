"""The pilot (the paper's JEP, job execution pilot): the program that runs tasks on a worker node.

    enrol -> exchange (reports in, orders out) -> stage in -> trays -> modules -> stage out -> report -> ... -> end

It asks for work, runs it in child processes, and keeps every report until some node has acknowledged it.  What it
leaves out on purpose: the ledger, its rules and the grids; a pilot knows its orders and nothing of the cluster's state.
"""
