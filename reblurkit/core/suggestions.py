"""What somebody may have meant by a word that is not known."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

_COMPARED = 2000  # names of a folder at most: a tenth of a second


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
    return _question(difflib.get_close_matches(word, [*dict.fromkeys(known)], cutoff=cutoff))


def near_path(path: str | os.PathLike[str]) -> str:
    """A question that names files or folders near to one that is not there; empty where none is near.

    Args:
        path: What came; looked for is what is near to the first of its names that does not exist.
    """
    given = Path(path)
    missing = next((each for each in (*reversed(given.parents), given) if not os.path.exists(each)), None)
    if missing is None:
        return ""
    try:
        names = os.listdir(missing.parent)
    except OSError:  # it is no folder, or not readable
        return ""
    near = difflib.get_close_matches(missing.name, sorted(names)) if len(names) <= _COMPARED else []
    # `.png` in common makes no short name near to another
    stems = difflib.get_close_matches(missing.stem, {Path(name).stem for name in near})
    near = [name for name in near if Path(name).stem in stems]
    whole = [missing.parent / name / given.relative_to(missing) for name in near]
    begun = [missing.parent / name for name in near]
    for places in (whole, begun):  # a link that leads nowhere is listed, and is not there
        if found := [str(each) for each in places if os.path.exists(each)]:
            return _question(found)
    return ""


def near_module(error: Exception) -> str:
    """A question that names modules of the folder that the user is in, or parts of one, near to one that there is not.

    Args:
        error: What its import has raised; other errors than a missing module or part have no near ones.
    """
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return did_you_mean(str(error.name), dir(error.obj))
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    found = [path.stem if path.suffix == ".py" else path.name for path in Path().iterdir() if _is_module(path)]
    return did_you_mean(error.name, found)


def _question(near: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()
