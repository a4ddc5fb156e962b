"""Files of tensors, written whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from reblurkit.core.files import whole_file
from reblurkit.errors import WeightsError


def save_tensors(content: Any, path: Path, *, make_folders: bool = True) -> None:
    """``torch.save`` into a file that is there whole or not at all, and on the disk.

    Args:
        content: What to save.
        path: The file to write; one that is there already is replaced in one piece.
        make_folders: Make the folders on the way to it that are missing.

    Raises:
        WeightsError: If it cannot be written; an earlier file is then still there.
    """
    try:
        with whole_file(path, make_folders=make_folders, sync=True) as partial, partial.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch hides a full disk
        if not isinstance(cause, OSError):
            raise
        there = "; the earlier file is as it was" if os.path.exists(path) else ""
        raise WeightsError(f"{path} cannot be written: {cause.strerror or cause}{there}") from error
