"""A run and what it leaves behind: work directory, log, curves, progress, results, and how it stops.

Nothing is imported here, so that a command pays only for what it uses.
"""
