"""Parts of the scripts in bench/. Standard library only.

processes.py   starts servers, waits until they listen, ends them
contenders.py  what can be measured: how each is started, and how the load generator is pointed at it
runs.py        builds, runs the load generator against a fresh server, reads its report
document.py    medians, tables, sections of docs/measurements.md
comparison.py  bench/compare: what is measured, in which size, and its table
budgets.py     bench/budgets: every budget of the design, with the run that shows it
"""
