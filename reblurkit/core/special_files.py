"""Files that end: a pipe or a device can be read for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_LARGEST = 4_000_000  # bytes of a text that is read as a whole: a configuration, a list
_SYSTEM = ("/proc/", "/sys/")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def special_kind(path: str | os.PathLike[str]) -> str | None:
    """What a name stands for in words, if it is no regular file; None for one, and where nothing can be found."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # not there, or no name at all
        return None
    # /proc/kmsg waits for news, /proc/self/pagemap does not end: both call themselves regular, and empty
    if stat.S_ISREG(status.st_mode) and not status.st_size and os.path.realpath(path).startswith(_SYSTEM):
        return "a file of the system"
    return _KINDS.get(stat.S_IFMT(status.st_mode))


def check_regular(path: Path) -> None:
    """Check that a name stands for a regular file, if for anything, before it is opened.

    Raises:
        OSError: If it stands for a pipe, a device, a socket or a folder.
    """
    if kind := special_kind(path):
        raise OSError(f"it is {kind}, not a file")


def read_text(path: Path, *, largest: int = _LARGEST, encoding: str = "utf-8") -> str:
    """What a text file holds; the name may come from a stranger, and stand for what has no end.

    Raises:
        OSError: If it is no regular file, cannot be read, or is larger than that many bytes.
        UnicodeDecodeError: If it is no text.
    """
    check_size(path, largest)
    return path.read_text(encoding=encoding)


def check_size(path: Path, largest: int) -> None:
    """Check that a name stands for a regular file of at most so many bytes.

    Raises:
        OSError: If it does not.
    """
    check_regular(path)
    size = path.stat().st_size
    if size > largest:
        raise OSError(f"it has {size} bytes, and no such file has more than {largest}")
