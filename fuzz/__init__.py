"""Fuzz targets: random and mutated input for everything that reads untrusted steering text.

steering    what is thrown at readers and expressions, and what must hold then
__main__    runs every target until the time is over: `make fuzz`, or hours by hand with `make fuzz SECONDS=7200`
"""
