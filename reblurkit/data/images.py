"""Image files of every kind a camera or a data set brings, as RGB tensors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from reblurkit.errors import DatasetNotFoundError, ImageFileError, ShapeError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read an image file.

    Files of 8 and 16 bits are read at full depth and divided by 255 or 65535. Grey images get three equal channels,
    palettes and CMYK are converted to RGB (CMYK without a colour profile), an alpha channel is dropped, and the EXIF
    orientation of camera files is applied.

    Args:
        path: PNG, JPEG, BMP, TIFF, WebP or PPM file.

    Returns:
        ``(3, H, W)`` float32 in [0, 1].

    Raises:
        DatasetNotFoundError: If there is no such file.
        ImageFileError: If the file is empty, truncated, or no image.
    """
    path = Path(path)
    try:
        array = _decode(path)
    except FileNotFoundError:
        raise DatasetNotFoundError(f"no image file {path}") from None
    except Exception as error:  # decoders of broken files raise whatever their parser ran into
        raise ImageFileError(f"cannot read image {path}: {_reason(path, error)}") from error
    return torch.from_numpy(np.ascontiguousarray(_rgb(array, path).transpose(2, 0, 1)))


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of an image file, from its header.

    Raises:
        ImageFileError: If the file is empty or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 lie on their side
    except Exception as error:  # as above
        raise ImageFileError(f"cannot read image {path}: {_reason(Path(path), error)}") from error
    return (width, height) if turned else (height, width)


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """An image ``(3, H, W)`` as ``(H, W, 3)`` 8-bit values: clamped to [0, 1], rounded."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ShapeError(f"expected one RGB image (3, H, W), but came a tensor of shape {tuple(image.shape)}")
    levels = (image.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    array: NDArray[np.uint8] = levels.permute(1, 2, 0).numpy()
    return array


def write_image(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write ``(3, H, W)`` in [0, 1] as an 8-bit file, clamped and rounded; missing folders are made.

    Raises:
        ShapeError: If the tensor is not one RGB image.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_uint8(image)).save(path)


def _decode(path: Path) -> NDArray[np.generic]:
    if path.suffix.lower() in {".tif", ".tiff"}:  # Pillow keeps only 8 bits of 16-bit colour
        from skimage.io import imread

        return np.asarray(imread(path))
    with Image.open(path) as image:
        if image.format == "PNG" and _png_depth(path) == 16:  # likewise
            from kornia_rs.io import read_image as read_deep_image

            return np.asarray(read_deep_image(str(path)))
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16") or upright.mode in {"I", "F"}:
            return np.asarray(upright)
        return np.asarray(upright.convert("RGB"))


def _png_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]  # bit depth in the IHDR chunk


def _rgb(array: NDArray[np.generic], path: Path) -> NDArray[np.float32]:
    """Any decoded array as ``(H, W, 3)`` float32 in [0, 1]."""
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype == np.int32:  # Pillow's mode "I" holds 16-bit files
        array = array.astype(np.uint16)
    if array.dtype == np.uint8:
        largest = 255.0
    elif array.dtype == np.uint16:
        largest = 65535.0
    else:
        raise ImageFileError(f"cannot read image {path}: expected 8 or 16 bits per value, but it holds {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise ImageFileError(f"cannot read image {path}: expected one image, but its array is {array.shape}")
    colour = array[..., :3] if array.shape[2] >= 3 else np.repeat(array[..., :1], 3, axis=2)
    scaled: NDArray[np.float32] = colour.astype(np.float32)
    scaled /= largest
    return scaled


def _reason(path: Path, error: Exception) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
