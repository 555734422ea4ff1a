"""Runs the SDK tests against a real gateway and a real Redis.

world.py    starts, stops, restarts and kills the two servers, and keeps their logs
control.py  lets the tests of any language restart them, over HTTP on loopback
suites.py   how each language's tests are started, and how their lines are read

`../run.py` is the command. Standard library only, so that it runs before anything is installed.
"""
