"""The ``reblurkit`` command."""

from reblurkit.cli.main import main

__all__ = ["main"]
