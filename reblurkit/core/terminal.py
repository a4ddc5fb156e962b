"""Texts of strangers on a terminal, which obeys some characters instead of showing them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def printable(text: str) -> str:
    r"""A text in which control characters, and bytes of names that are no text, are written out.

    Example:
        >>> printable("a\x1b[31m\u202eb")
        'a\\x1b[31m\\u202eb'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


@contextmanager
def printable_warnings() -> Iterator[None]:
    """Warnings in this block are shown as :func:`printable` texts: they name files."""
    before = warnings.formatwarning

    def formatted(message: Warning | str, *place: Any, **options: Any) -> str:
        lines = map(printable, str(message).split("\n"))
        return before("\n".join(lines), *place, **options)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = before
