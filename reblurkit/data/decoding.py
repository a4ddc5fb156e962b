"""Pixels of image files, at the depth at which they are stored."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reblurkit.core.memory import free_memory
from reblurkit.data.headers import Header, any_size, open_picture, png_layout, read_header
from reblurkit.errors import ImageFileError

_BYTES = 20  # that a pixel takes while it is read: in Pillow, as an array, and as three floats
# Pixels in a byte at most: zlib packs 1032 bytes into one. Other formats can say "all of one colour".
_DENSEST, _TELLING = 10_000, {"PNG", "JPEG", "TIFF", "BMP"}
_INVERTED_GREY, _GREY, _RGB = 0, 1, 2  # what the values of a TIFF file mean
_UNCOMPRESSED = 1


def decode(path: Path) -> NDArray[np.generic]:
    """The upright image of a file.

    Returns:
        ``(H, W)`` or ``(H, W, C)``; of 2 or 4 channels the last is alpha. Values of 8 or 16 bits; of other files
        whatever they hold.

    Raises:
        ImageFileError: If it is larger than memory.
        Exception: Of any kind, if it is damaged or no image.
    """
    header = read_header(path)
    _check_claim(header, path)
    _check_memory(header)
    if header.kind == "PNG" and header.bits == 16:
        return _upright(_deep_png(path, header), header.orientation)
    if header.kind == "TIFF" and header.bits == 16:
        return _upright(_deep_tiff(path), header.orientation)
    array = _with_pillow(path, header)
    return array if header.kind == "TIFF" else _upright(array, header.orientation)  # Pillow has turned TIFF files


def _check_claim(header: Header, path: Path) -> None:
    """Refuse a damaged header before the pixels that it speaks of are made up, which takes long."""
    (height, width), bytes_ = header.size, path.stat().st_size
    if header.kind in _TELLING and height * width > _DENSEST * bytes_:
        raise ImageFileError(f"a file of {bytes_} bytes cannot hold the {width} x {height} pixels that it speaks of")


def _check_memory(header: Header) -> None:
    height, width = header.size
    needed, free = height * width * _BYTES * max(header.bits // 8, 1), free_memory()
    if free is not None and needed > free:
        raise ImageFileError(
            f"{width} x {height} pixels take about {needed / 2**30:.1f} GB of memory, of which {free / 2**30:.1f} GB "
            "are free; make the image smaller or cut it into parts"
        )


def _with_pillow(path: Path, header: Header) -> NDArray[np.generic]:
    with open_picture(path) as image:
        if image.format == "TIFF":  # whose size Pillow checks once more
            with any_size():
                image.load()
        if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
            if header.bits < 16:
                raise ImageFileError(f"expected 8 or 16 bits per value, but it holds {header.bits}")
            return np.asarray(image)
        return np.asarray(image.convert("RGBA" if header.has_alpha else "RGB"))


def _deep_png(path: Path, header: Header) -> NDArray[np.generic]:
    """Pillow keeps 8 bits of what is not one grey value, kornia_rs all, but knows no grey with alpha."""
    layout = png_layout(path)
    colour = layout.colour
    if colour in {2, 6}:
        from kornia_rs.io import read_image

        # the first chunk says how large; Pillow, which has been asked before, believes the last of its kind
        if (layout.height, layout.width) not in {header.size, header.size[::-1]}:
            raise ImageFileError("its headers tell of two sizes")
        return np.asarray(read_image(str(path)))
    if colour == 4:
        # The same bytes as RGB and alpha of 8 bits, with the same filters: only the header differs.
        content = path.read_bytes()
        chunk = content[12:24] + bytes((8, 6)) + content[26:29]
        content = content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
        with open_picture(io.BytesIO(content)) as image:
            return np.asarray(image).view(">u2").astype(np.uint16)
    with open_picture(path) as image:
        return np.asarray(image).astype(np.uint16)


def _deep_tiff(path: Path) -> NDArray[np.generic]:
    """Pillow keeps 8 bits of what is not one grey value; tifffile knows the layouts, libtiff the compressions."""
    from tifffile import TiffFile

    with TiffFile(path) as file:
        page = file.pages.first
        meaning, compression, fill_order = page.photometric, page.compression, page.fillorder
        if page.dtype != np.uint16:
            raise ImageFileError(f"expected 8 or 16 bits per value, but it holds {page.dtype}")
        if compression != _UNCOMPRESSED:
            page.compression, page.fillorder = _UNCOMPRESSED, 1  # the segments come to it decompressed
        array = np.zeros(page.shaped, np.uint16)  # planes, depth, height, width, values that lie together
        for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            _, (plane, _, top, left, _), shape = page.decode(None, index)
            file.filehandle.seek(offset)
            data = file.filehandle.read(count)
            if compression != _UNCOMPRESSED:
                size = 2 * math.prod(page.chunks if page.is_tiled else shape)
                data = _decompressed(data, size, compression, fill_order)
            segment = np.asarray(page.decode(data, index)[0])
            part = array[plane, 0, top : top + shape[1], left : left + shape[2]]  # of a tile at the border not all
            part[:] = segment[0, : part.shape[0], : part.shape[1]]
        values = np.concatenate(array[:, 0], axis=-1) if len(array) > 1 else array[0, 0]
        colours = 3 if meaning == _RGB else 1
        alphas = [number for number, extra in enumerate(page.extrasamples) if extra in (1, 2)]
        colour = np.invert(values[..., :1]) if meaning == _INVERTED_GREY else values[..., :colours]
        if not alphas:
            return colour
        alpha = values[..., colours + alphas[0], None]
        if page.extrasamples[alphas[0]] == 1:  # the colours have been multiplied by it
            colour = (colour.astype(np.float32) * 65535 / np.maximum(alpha, 1)).round().clip(0, 65535).astype(np.uint16)
        return np.concatenate([colour, alpha], axis=-1)


def _decompressed(data: bytes, size: int, compression: int, fill_order: int) -> bytes:
    """A strip or tile of a TIFF file, decompressed by Pillow's libtiff, to which it is a grey image of one row."""
    tags = {256: size, 257: 1, 258: 8, 259: compression, 262: _GREY, 266: fill_order, 273: 0, 277: 1, 278: 1}
    tags[279] = len(data)
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the data begins
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with open_picture(io.BytesIO(start + data)) as row:
        return row.tobytes()


def _upright(array: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Undo the camera's orientation, EXIF values 1 to 8."""
    if orientation in {5, 6, 7, 8}:
        array = array.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    return array
