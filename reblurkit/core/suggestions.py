"""What somebody may have meant by a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """A question that names the known words near to one, to go after a message; empty where none is near.

    Args:
        word: What came.
        known: What there is.
        cutoff: How near a word must be, in [0, 1].

    Example:
        >>> did_you_mean("--outptu", ["--output", "--tile"])
        '; did you mean --output?'
        >>> did_you_mean("x", ["--output"])
        ''
    """
    near = difflib.get_close_matches(word, [*dict.fromkeys(known)], cutoff=cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""
