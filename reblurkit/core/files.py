"""Files that are there whole or not at all, and folders that nothing is in yet."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from reblurkit.core.file_locks import MARK, claimed, hold, sweep
from reblurkit.errors import ArgumentError

_swept: set[str] = set()  # folders, each once in a process


@contextmanager
def whole_file(path: Path, *, make_folders: bool = True, sync: bool = False) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` when the block ends well.

    The file is there already, empty, and held: what is left of it by a process that was killed is swept by the next
    one that writes into the folder.

    Args:
        path: The file to write; one that is there already is replaced in one piece.
        make_folders: Make the folders on the way to it that are missing.
        sync: Have it on the disk before it gets its name, so that a power failure cannot tear it either; for what cost
            hours.

    Raises:
        OSError: If it cannot be written; the earlier file is then still there, and nothing else.
    """
    partial = path.with_name(f"{MARK}{uuid4().hex}{path.suffix}")
    descriptor = None
    try:
        if make_folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        descriptor = hold(partial)
        yield partial
        if sync:
            _sync(partial)
        partial.replace(path)
        if sync:
            with suppress(OSError):  # not every system can
                _sync(path.parent)
    except OSError as error:
        if error.filename == str(partial) or (error.filename is None and error.errno == errno.ENOSPC):
            error.filename = str(path)  # the name that the user knows; a full disk comes without one
        raise
    finally:
        with suppress(OSError):
            partial.unlink()
        if descriptor is not None:
            os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _sweep_once(folder: Path) -> None:
    name = os.path.abspath(folder)
    if name not in _swept:
        _swept.add(name)
        sweep(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


@contextmanager
def new_folder(folder: Path, what: str) -> Iterator[None]:
    """Write into a folder that nothing is in, and that no other process writes into meanwhile.

    Raises:
        ArgumentError: If it is not so.
    """
    with claimed(folder) as mine:
        if not mine:
            raise ArgumentError(f"another run is writing into the {what} {folder}; choose another `output`")
        check_new_folder(folder, what)
        yield


def check_new_folder(folder: Path, what: str) -> None:
    """Check that a folder can take the files of a run, which must not mix with those of another.

    Args:
        folder: A folder that is there or not.
        what: What it is for, for the message.

    Raises:
        ArgumentError: If something is in it, or it is a file.
    """
    sweep(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError(f"the {what} {folder} must be new or empty; choose another `output`")
