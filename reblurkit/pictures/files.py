"""Pictures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from reblurkit.core.files import whole_file


def save_picture(picture: Image.Image, path: Path, **options: Any) -> None:
    """Write a picture, whole or not at all; missing folders are made.

    Args:
        picture: The picture.
        path: A name with the suffix of an image file.
        **options: Of ``Image.save``.

    Raises:
        OSError: If it cannot be written.
    """
    with whole_file(path) as partial:
        picture.save(partial, **options)
