"""Image files of every kind a camera or a data set brings, as RGB tensors."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reblurkit.core.files import whole_file
from reblurkit.data.decoding import decode
from reblurkit.data.headers import Header, read_header, read_scene
from reblurkit.errors import ArgumentError, BackendError, DatasetNotFoundError, ImageFileError, ShapeError

Levels = NDArray[np.uint8 | np.uint16]
"""An image as files hold it, ``(H, W, 3)``."""

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif"}
)
_ONLY_READ = frozenset({".heic", ".heif"})


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read an image file.

    Files of 8 and 16 bits are read at full depth and divided by 255 or 65535. Grey images get three equal channels,
    palettes and CMYK are converted to RGB (CMYK without a colour profile), an alpha channel is dropped, and the EXIF
    orientation of camera files is applied.

    Args:
        path: PNG, JPEG, BMP, TIFF, WebP, AVIF or HEIC (extra ``[heic]``) file; of several pages the first. Of AVIF and
            HEIC files 8 bits are read.

    Returns:
        ``(3, H, W)`` float32 in [0, 1].

    Raises:
        DatasetNotFoundError: If there is no such file.
        ImageFileError: If the file is empty, truncated, no image, or larger than memory.
        BackendError: If it is a HEIC file and pillow-heif is not installed.
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
    return _rgb(_decoded(path), path)


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
    return _header(Path(path)).size


class ImageKind(NamedTuple):
    """How a file stores an image, and what it holds beside RGB values.

    Attributes:
        bits: Of a value, 8 or 16.
        profile: ICC profile of RGB values.
        exif: What describes the scene, such as date and place.
        dpi: Pixels per inch, horizontal and vertical.
        alpha: Transparency, ``(H, W)``, of as many bits.
    """

    bits: int = 8
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    alpha: NDArray[np.generic] | None = None


def image_kind(path: str | os.PathLike[str]) -> ImageKind:
    """How a file stores its image, for :func:`write_image` to store another the same way.

    Raises:
        ImageFileError: If the file is empty or no image.
    """
    path = Path(path)
    header = _header(path)
    profile = header.profile or b""
    is_rgb = profile[16:20] == b"RGB "  # read_image makes RGB of everything, for which others are wrong
    alpha = None
    if header.has_alpha:
        array = _decoded(path)
        alpha = array[..., -1] if array.ndim == 3 and array.shape[2] in (2, 4) else None
    with _named(path):
        exif = read_scene(path)
    return ImageKind(16 if header.bits == 16 else 8, profile if is_rgb else None, exif, header.dpi, alpha)


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """An image ``(3, H, W)`` as ``(H, W, 3)`` 8-bit values: clamped to [0, 1], rounded."""
    return _levels(image, 8).astype(np.uint8, copy=False)


def write_image(image: Tensor, path: str | os.PathLike[str], kind: ImageKind | None = None) -> None:
    """Write ``(3, H, W)`` in [0, 1] as a file, clamped and rounded; missing folders are made.

    The file appears under its name only when it is whole.

    Args:
        image: ``(3, H, W)`` in [0, 1]; other values are clamped.
        path: A name with the suffix of an image file, other than HEIC.
        kind: Bits of a value, of which 16 are for PNG only, and what is stored beside them; default 8 bits and nothing.

    Raises:
        ShapeError: If the tensor is not one RGB image.
        ArgumentError: If it holds NaN, the suffix is of no image file, or 16 bits are asked of another than PNG.
        ImageFileError: If the file cannot be written.
    """
    path, kind = Path(path), kind or ImageKind()
    if path.suffix.lower() not in SUFFIXES - _ONLY_READ:
        raise ArgumentError(f"cannot write {path}: expected a suffix of {', '.join(sorted(SUFFIXES - _ONLY_READ))}")
    if kind.bits not in (8, 16) or (kind.bits == 16 and path.suffix.lower() != ".png"):
        raise ArgumentError(f"cannot write {path}: expected 8 bits, or 16 in a .png file, but came {kind.bits}")
    if image.isnan().any():
        raise ArgumentError(f"cannot write {path}: the image holds NaN")
    array = _levels(image, kind.bits)
    if kind.alpha is not None:
        array = np.concatenate([array, kind.alpha[..., None]], axis=-1)
    try:
        with whole_file(path) as partial:
            if kind.bits == 8:
                beside: dict[str, Any] = {"icc_profile": kind.profile, "exif": kind.exif, "dpi": kind.dpi}
                Image.fromarray(array).save(partial, **{name: value for name, value in beside.items() if value})
            else:
                _write_deep_png(array, partial, kind)
    except OSError as error:
        raise ImageFileError(f"cannot write {path}: {error.strerror or error}") from error


def _levels(image: Tensor, bits: int) -> NDArray[np.generic]:
    if image.ndim != 3 or image.shape[0] != 3:
        raise ShapeError(f"expected one RGB image (3, H, W), but came a tensor of shape {tuple(image.shape)}")
    levels = (image.detach().clamp(0, 1) * (2**bits - 1)).round().to("cpu", {8: torch.uint8, 16: torch.uint16}[bits])
    array: NDArray[np.generic] = levels.permute(1, 2, 0).numpy()
    return array


def _write_deep_png(array: NDArray[np.generic], partial: Path, kind: ImageKind) -> None:
    """Pillow writes no 16-bit colour, and kornia_rs nothing beside it: chunks go in front of the pixels."""
    from kornia_rs.io import write_image_png_u16

    write_image_png_u16(str(partial), np.ascontiguousarray(array), "rgb" if array.shape[2] == 3 else "rgba")
    chunks = b""
    if kind.profile is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(kind.profile))
    if kind.dpi is not None:
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in kind.dpi), 1))
    if kind.exif is not None:
        chunks += _chunk(b"eXIf", kind.exif.removeprefix(b"Exif\0\0"))
    content = partial.read_bytes()
    header = 33  # signature and IHDR
    partial.write_bytes(content[:header] + chunks + content[header:])


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _header(path: Path) -> Header:
    with _named(path):
        return read_header(path)


def _decoded(path: Path) -> NDArray[np.generic]:
    with _named(path):
        return decode(path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which file it was that cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise DatasetNotFoundError(f"no image file {path}") from None
    except MemoryError as error:
        raise ImageFileError(f"cannot read image {path}: there is not enough memory for it") from error
    except BackendError as error:
        raise BackendError(f"cannot read image {path}: {error}") from error
    except Exception as error:  # decoders of broken files raise whatever their parser ran into
        raise ImageFileError(f"cannot read image {path}: {_reason(path, error)}") from error


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
