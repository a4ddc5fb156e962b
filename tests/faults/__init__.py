"""Runs that are killed, and disks that are full: ``nox -s faults``, or ``python -m tests.faults``."""
