"""Decoded images in memory-mapped files: a crop reads its own bytes and decodes nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from reblurkit.core.files import whole_file
from reblurkit.core.special_files import check_regular
from reblurkit.data.images import Levels, read_levels
from reblurkit.errors import ArgumentError, ImageFileError

CacheFolder = bool | str | os.PathLike[str] | None
"""A folder, True for the default one, None or False for no cache. (``bool`` first: a command line says "true".)"""


def reader(cache: CacheFolder) -> Callable[[Path], Levels]:
    """What reads the image files of a data set: decodes each time, or keeps what it decodes."""
    return ImageCache(cache).levels if cache else read_levels


class ImageCache:
    """Keeps each image file, decoded, in a file of its own that is mapped into memory.

    A file is decoded when it is first asked for, and again when its size or time has changed; what was kept of an
    earlier version stays until the folder is deleted. Files are written whole or not at all, so that workers,
    processes and nodes with one file system share a folder.

    Args:
        folder: Where to keep them; made when first needed. ``True``: the folder ``reblurkit/images`` in the cache of
            ``torch.hub``.

    Raises:
        ArgumentError: If the folder's name is a file.

    Example:
        >>> import tempfile
        >>> from reblurkit.data import write_image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     write_image(torch.rand(3, 8, 9), f"{root}/a.png")
        ...     levels = ImageCache(f"{root}/cache").levels(f"{root}/a.png")
        >>> levels.shape, levels.dtype
        ((8, 9, 3), dtype('uint8'))
    """

    def __init__(self, folder: str | os.PathLike[str] | Literal[True]) -> None:
        self.folder = Path(torch.hub.get_dir()) / "reblurkit" / "images" if folder is True else Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ArgumentError(f"`cache` must be a folder, but {self.folder} is a file")

    def levels(self, path: str | os.PathLike[str]) -> Levels:
        """The image's values, ``(H, W, 3)`` of 8 or 16 bits, mapped into memory and read-only.

        Raises:
            DatasetNotFoundError: If there is no such image file.
            ImageFileError: If it cannot be read, or what was decoded cannot be written.
        """
        kept = self.path(path)
        if (mapped := _mapped(kept)) is None:
            levels = read_levels(path)
            try:
                with whole_file(kept) as partial:
                    np.save(partial, levels)
            except OSError as error:
                raise ImageFileError(
                    f"cannot keep {path} in the cache {self.folder}: {error.strerror or error}; name a folder that "
                    "can be written to, or none"
                ) from error
            mapped = _mapped(kept)
        if mapped is None:
            raise ImageFileError(f"cannot read {kept} of the cache; delete {self.folder}")
        return mapped

    def path(self, path: str | os.PathLike[str]) -> Path:
        """Where a version of an image file is kept, there or not: follows from its full path, size and time."""
        full = Path(os.path.realpath(path))
        try:
            status = full.stat()
        except OSError:  # told by whoever reads the image
            return self.folder / "missing.npy"
        version = f"{full}\0{status.st_size}\0{status.st_mtime_ns}"
        return self.folder / f"{hashlib.sha256(version.encode(errors='surrogateescape')).hexdigest()[:32]}.npy"


def _mapped(path: Path) -> Levels | None:
    try:
        check_regular(path)
        levels: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # not there, or not written by this class: NumPy believes what a header says
        return None
    if not isinstance(levels, np.memmap):  # an archive
        return None
    return levels if levels.ndim == 3 and levels.shape[2] == 3 and levels.dtype in (np.uint8, np.uint16) else None
