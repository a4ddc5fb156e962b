"""Files that are there whole or not at all, and folders that nothing is in yet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from reblurkit.errors import ArgumentError


@contextmanager
def whole_file(path: Path, *, make_folders: bool = True) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` when the block ends well.

    Args:
        path: The file to write; one that is there already is replaced in one piece.
        make_folders: Make the folders on the way to it that are missing.

    Raises:
        OSError: If it cannot be written; the earlier file is then still there, and nothing else.
    """
    partial = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        if make_folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def nothing_left_of_failures(folder: Path) -> Iterator[None]:
    """A folder that is new or empty, and is so again where the block fails or is interrupted."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in folder.iterdir() if folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with suppress(OSError):  # something else has come into a parent
            for path in new:
                path.rmdir()
        raise


def check_new_folder(folder: Path, what: str) -> None:
    """Check that a folder can take the files of a run, which must not mix with those of another.

    Args:
        folder: A folder that is there or not.
        what: What it is for, for the message.

    Raises:
        ArgumentError: If something is in it, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError(f"the {what} {folder} must be new or empty; choose another `output`")
