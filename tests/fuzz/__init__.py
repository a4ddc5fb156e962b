"""Damaged and hostile files of every format that is read: ``nox -s fuzz``, or ``python -m tests.fuzz``."""
