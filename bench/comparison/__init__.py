"""Parts of bench/compare. Standard library only.

processes.py   starts servers, waits until they listen, ends them
contenders.py  what is compared: how each is started, and how the load generator is pointed at it
scenarios.py   what is measured, in which size
table.py       medians, and the table for docs/measurements.md
"""
