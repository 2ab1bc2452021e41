"""Grid plugins: the one door from a site to its batch system (arXiv:1311.5904, section 3.2.1).

`base` is the contract, `registry` makes a plugin from its name and options, `command` runs the commands of
batch systems.  A plugin knows nothing of the ledger: it carries requests out and tells states back.
"""
