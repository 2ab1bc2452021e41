"""Fuzz targets: random and mutated input for everything that reads what others wrote.

steering    what is thrown at readers and expressions, and what must hold then
software    addresses, platforms and archives
wire        frames between nodes, passkeys, tokens, what calls hold
ledger      entries at the limits of their fields, as a lying member could write them
__main__    runs every target until the time is over: `make fuzz`, or hours by hand with `make fuzz SECONDS=7200`
"""
