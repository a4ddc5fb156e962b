"""Files that a living process holds: what it is writing, and what it has taken upon itself. The dead hold nothing.

A file is held by a lock of the operating system (``flock``), which ends with its process, however that ends. Where a
file system or a platform knows no such locks nothing is swept, and everything counts as free to take.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MARK = ".reblurkit-"
"""What the names of held files begin with."""
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Take it upon this process to write a file or folder, as long as the block runs.

    Args:
        path: What is to be written; missing folders are made, and removed at the end where nothing is in them.

    Yields:
        Whether it is this process's: False where another one that lives has claimed it.
    """
    path = Path(os.path.abspath(path))
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    token = path.parent / f"{MARK}{name}.claim"
    made = [folder for folder in path.parents if not folder.exists()]
    descriptor = None
    try:
        try:
            descriptor = _hold_in_folder(token)
            mine = descriptor is not None
        except OSError:  # told by whoever writes there
            mine = True
        yield mine
    finally:
        if descriptor is not None:
            with suppress(OSError):
                token.unlink()
            os.close(descriptor)
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _hold_in_folder(token: Path, tries: int = 10) -> int | None:
    token.parent.mkdir(parents=True, exist_ok=True)
    try:
        return hold(token)
    except FileNotFoundError:  # another process has just removed the folder that it had made
        if not tries:
            raise
        return _hold_in_folder(token, tries - 1)


def hold(path: Path) -> int | None:
    """Create a file, or take over one that nobody holds.

    Returns:
        A descriptor, which holds the file until it is closed; None if another process holds it.

    Raises:
        OSError: If it cannot be created.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o666)
        if fcntl is None:  # nothing to hold; and an open file could be neither renamed nor removed there
            os.close(descriptor)
            return os.open(os.devnull, os.O_RDONLY)
        if _lock(descriptor) is False:
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # removed between opening and locking


def sweep(folder: Path) -> None:
    """Remove what processes that have died were writing in a folder, of this user and held by none."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(MARK) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_free(Path(entry.path))


def _remove_if_free(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | _NO_LINKS)
    try:
        own = os.fstat(descriptor).st_uid == os.geteuid()
        if own and _lock(descriptor) and _is_at(path, descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether the file is ours now; None where nobody can tell."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
