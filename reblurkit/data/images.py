"""Image files of every kind a camera or a data set brings, as RGB tensors."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from reblurkit.core.files import whole_file
from reblurkit.errors import ArgumentError, DatasetNotFoundError, ImageFileError, ShapeError

Levels = NDArray[np.uint8 | np.uint16]
"""An image as files hold it, ``(H, W, 3)``."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_COLOUR = frozenset({"RGB", "RGBA"})
_ORIENTATION = 0x0112  # tags of EXIF and TIFF
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read an image file.

    Files of 8 and 16 bits are read at full depth and divided by 255 or 65535. Grey images get three equal channels,
    palettes and CMYK are converted to RGB (CMYK without a colour profile), an alpha channel is dropped, and the EXIF
    orientation of camera files is applied.

    Args:
        path: PNG, JPEG, BMP, TIFF or WebP file; of several pages the first.

    Returns:
        ``(3, H, W)`` float32 in [0, 1].

    Raises:
        DatasetNotFoundError: If there is no such file.
        ImageFileError: If the file is empty, truncated, or no image.
    """
    return to_image(read_levels(path))


def read_levels(path: str | os.PathLike[str]) -> Levels:
    """Read an image file as :func:`read_image` does, in its own whole numbers.

    Returns:
        ``(H, W, 3)``, uint8 or uint16.

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
    return _rgb(array, path)


def to_image(levels: Levels) -> Tensor:
    """An array of :func:`read_levels`, or a crop of it, as an image ``(3, H, W)``, float32 in [0, 1].

    Example:
        >>> to_image(np.array([[[0, 51, 255]]], np.uint8)).flatten()
        tensor([0.0000, 0.2000, 1.0000])
    """
    scaled = np.ascontiguousarray(levels.transpose(2, 0, 1)).astype(np.float32)
    scaled /= np.iinfo(levels.dtype).max
    return torch.from_numpy(scaled)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of an image file, from its header.

    Raises:
        ImageFileError: If the file is empty or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Orientations 5 to 8 lie on their side; of TIFF files Pillow gives the size of the upright image.
            turned = image.getexif().get(_ORIENTATION, 1) >= 5 and image.format != "TIFF"
    except Exception as error:  # as above
        raise ImageFileError(f"cannot read image {path}: {_reason(Path(path), error)}") from error
    return (width, height) if turned else (height, width)


class ImageKind(NamedTuple):
    """How a file stores an image: ``bits`` of a value, 8 or 16, and the ICC ``profile`` of its RGB values, if any."""

    bits: int = 8
    profile: bytes | None = None


def image_kind(path: str | os.PathLike[str]) -> ImageKind:
    """How a file stores its image, from its header, for :func:`write_image` to store another the same way.

    Raises:
        ImageFileError: If the file is empty or no image.
    """
    try:
        with Image.open(path) as image:
            profile = image.info.get("icc_profile") or b""
            is_rgb = profile[16:20] == b"RGB "  # read_image makes RGB of everything, for which others are wrong
            return ImageKind(16 if _is_deep(image, Path(path)) else 8, profile if is_rgb else None)
    except Exception as error:  # as above
        raise ImageFileError(f"cannot read image {path}: {_reason(Path(path), error)}") from error


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """An image ``(3, H, W)`` as ``(H, W, 3)`` 8-bit values: clamped to [0, 1], rounded."""
    return _levels(image, 8).astype(np.uint8, copy=False)


def write_image(image: Tensor, path: str | os.PathLike[str], kind: ImageKind | None = None) -> None:
    """Write ``(3, H, W)`` in [0, 1] as a file, clamped and rounded; missing folders are made.

    The file appears under its name only when it is whole.

    Args:
        image: The image.
        path: A name with the suffix of an image file.
        kind: Bits of a value, of which 16 are for PNG only, and ICC profile; default 8 bits and none.

    Raises:
        ShapeError: If the tensor is not one RGB image.
        ArgumentError: If it holds NaN, the suffix is of no image file, or 16 bits are asked of another than PNG.
        ImageFileError: If the file cannot be written.
    """
    path, kind = Path(path), kind or ImageKind()
    if path.suffix.lower() not in SUFFIXES:
        raise ArgumentError(f"cannot write {path}: expected a suffix of {', '.join(sorted(SUFFIXES))}")
    if kind.bits not in (8, 16) or (kind.bits == 16 and path.suffix.lower() != ".png"):
        raise ArgumentError(f"cannot write {path}: expected 8 bits, or 16 in a .png file, but came {kind.bits}")
    if image.isnan().any():
        raise ArgumentError(f"cannot write {path}: the image holds NaN")
    array = _levels(image, kind.bits)
    try:
        with whole_file(path) as partial:
            if kind.bits == 8:
                Image.fromarray(array).save(partial, icc_profile=kind.profile)
            else:
                _write_deep_png(array, partial, kind.profile)
    except OSError as error:
        raise ImageFileError(f"cannot write {path}: {error.strerror or error}") from error


def _levels(image: Tensor, bits: int) -> NDArray[np.generic]:
    if image.ndim != 3 or image.shape[0] != 3:
        raise ShapeError(f"expected one RGB image (3, H, W), but came a tensor of shape {tuple(image.shape)}")
    levels = (image.detach().clamp(0, 1) * (2**bits - 1)).round().to("cpu", {8: torch.uint8, 16: torch.uint16}[bits])
    array: NDArray[np.generic] = levels.permute(1, 2, 0).numpy()
    return array


def _write_deep_png(array: NDArray[np.generic], path: Path, profile: bytes | None) -> None:
    """Pillow writes no 16-bit colour, and kornia_rs no profile: its chunk goes in front of the pixels."""
    from kornia_rs.io import write_image_png_u16

    write_image_png_u16(str(path), np.ascontiguousarray(array), "rgb")
    if profile is None:
        return
    data = b"ICC profile\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(data)) + b"iCCP" + data + struct.pack(">I", zlib.crc32(b"iCCP" + data))
    content = path.read_bytes()
    header = 33  # signature and IHDR
    path.write_bytes(content[:header] + chunk + content[header:])


def _decode(path: Path) -> NDArray[np.generic]:
    with Image.open(path) as image:
        if image.mode in _COLOUR and _is_deep(image, path):  # of which Pillow keeps only 8 bits
            if image.format == "PNG":
                from kornia_rs.io import read_image as read_png

                array = np.asarray(read_png(str(path)))
            else:
                from tifffile import imread

                array = np.asarray(imread(path, key=0))
                if cast("TiffImageFile", image).tag_v2.get(_PLANAR) == 2:  # one plane after the other
                    array = array.transpose(1, 2, 0)
        elif image.mode.startswith("I;16") or image.mode in {"I", "F"}:
            array = np.asarray(image)
            array = array.astype(array.dtype.newbyteorder("="), copy=False)
            if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0:  # 0 is white
                array = np.invert(array) if array.dtype == np.uint16 else array
        else:
            array = np.asarray(image.convert("RGB"))
        return _upright(array, image.getexif().get(_ORIENTATION, 1))


def _is_deep(image: Image.Image, path: Path) -> bool:
    """Whether an opened file has 16 bits per value."""
    if image.mode not in _COLOUR:
        return image.mode == "I" or image.mode.startswith("I;16")
    if image.format == "PNG":
        return _png_depth(path) == 16
    return isinstance(image, TiffImageFile) and 16 in image.tag_v2.get(_BITS_PER_SAMPLE, ())


def _png_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]  # bit depth in the IHDR chunk


def _upright(array: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Undo the camera's orientation, EXIF values 1 to 8."""
    if orientation in {5, 6, 7, 8}:
        array = array.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    return array


def _rgb(array: NDArray[np.generic], path: Path) -> Levels:
    """Any decoded array as ``(H, W, 3)`` of its 8 or 16 bits."""
    if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:  # Pillow's mode "I" holds 16-bit files
        array = array.astype(np.uint16)
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageFileError(f"cannot read image {path}: expected 8 or 16 bits per value, but it holds {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise ImageFileError(f"cannot read image {path}: expected one image, but its array is {array.shape}")
    colour = array[..., :3] if array.shape[2] >= 3 else np.repeat(array[..., :1], 3, axis=2)
    return cast("Levels", colour)


def _reason(path: Path, error: Exception) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
