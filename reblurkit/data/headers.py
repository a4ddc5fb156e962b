"""What image files say of their image, read without its pixels."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from reblurkit.core.special_files import check_regular
from reblurkit.errors import BackendError

# Of all that Pillow reads; others may start programs, as PostScript does.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_ORIENTATION, _RESOLUTION = 274, 282  # tags of EXIF and TIFF
_EXIF_PART, _GPS_PART = 0x8769, 0x8825
# Texts, camera, date, artist, copyright; not where a TIFF file keeps its pixels.
_KEPT = {270, 271, 272, 305, 306, 315, 33432, *range(0x9C9B, 0x9CA0)}
# Maker's notes refer to their place in the original file; width, height and Interoperability are of its pixels.
_DROPPED = {0x927C, 0xA002, 0xA003, 0xA005}
_limit = threading.Lock()


class Header(NamedTuple):
    """What an image file says of its image.

    Attributes:
        kind: Pillow's name of the format.
        size: Height and width of the upright image.
        bits: Of a value, as far as it can be read.
        orientation: Of the camera, EXIF values 1 to 8, that is still to be undone.
        has_alpha: Whether it has a channel of transparency.
        profile: ICC profile.
        dpi: Pixels per inch, horizontal and vertical.
    """

    kind: str
    size: tuple[int, int]
    bits: int
    orientation: int
    has_alpha: bool
    profile: bytes | None
    dpi: tuple[float, float] | None


def read_header(path: Path) -> Header:
    """What a file says of its image.

    Raises:
        BackendError: If the package that reads its format is not installed.
        Exception: Of any kind, if it is no image.
    """
    check_regular(path)
    with path.open("rb") as file:
        if _tiff_start(file) is not None:
            return _tiff_header(file)
    with open_picture(path) as image:
        bits = png_layout(path).bits if image.format == "PNG" else 8
        exif = _exif(image, path)
        orientation = int(exif.get(_ORIENTATION, 1))
        width, height = image.size
        is_said = (
            image.format != "JPEG" or image.info.get("jfif_unit") or _RESOLUTION in exif
        )  # else Pillow makes it up
        return Header(
            kind=str(image.format),
            size=(width, height) if orientation >= 5 else (height, width),
            bits=max(bits, 8),
            orientation=orientation,
            has_alpha=image.has_transparency_data,
            profile=image.info.get("icc_profile"),
            dpi=_dpi(image.info.get("dpi")) if is_said else None,
        )


def read_scene(path: Path) -> bytes | None:
    """What a file's EXIF says of the scene, and holds for another image of it too: camera, date, place, texts.

    Raises:
        Exception: Of any kind, if it is no image.
    """
    with path.open("rb") as file:
        start = _tiff_start(file)
        if start is not None and len(start) == 8:
            file.seek(0)
            exif = Image.Exif()
            exif.load_from_fp(file)
            return _scene(exif)
    if start is not None:  # with numbers of 64 bits, which Pillow's EXIF does not know
        return None
    with open_picture(path) as image:
        return _scene(_exif(image, path))


@contextmanager
def open_picture(source: Path | BinaryIO) -> Iterator[Image.Image]:
    """Open a picture of one of the formats that are meant, of any number of pixels.

    Raises:
        BackendError: If the package that reads its format is not installed.
        OSError: If it is none.
    """
    formats = list(_FORMATS)
    start = b""
    if isinstance(source, Path):
        check_regular(source)
        with source.open("rb") as file:
            start = file.read(64)
    if start[4:8] == b"ftyp" and any(brand in start[8:] for brand in _HEIF_BRANDS):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise BackendError(
                "HEIC files need pillow-heif: pip install 'reblurkit[heic]', or convert them to PNG"
            ) from None
        register_heif_opener()
        formats.append("HEIF")
    with any_size():
        image = Image.open(source, formats=formats)
    with image:
        yield image


@contextmanager
def any_size() -> Iterator[None]:
    """Lift Pillow's limit on pixels, which protects servers from strangers' pictures; here memory is the limit."""
    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


class PngLayout(NamedTuple):
    """Size, bits of a value, and the type of colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""

    width: int
    height: int
    bits: int
    colour: int


def png_layout(path: Path) -> PngLayout:
    """What the first chunk of a PNG file says."""
    with path.open("rb") as file:
        return PngLayout(*struct.unpack(">IIBB", file.read(26)[16:]))


def _exif(image: Image.Image, path: Path) -> Image.Exif:
    if image.format == "PNG" and "exif" not in image.info:
        image.info["exif"] = _late_exif(path)
    return Image.Image.getexif(image)  # a PNG file's own method reads all pixels


def _late_exif(path: Path) -> bytes | None:
    """The EXIF chunk of a PNG file, which may stand behind the pixels."""
    with path.open("rb") as file:
        file.seek(8)
        while len(start := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", start)
            if name == b"eXIf":
                return b"Exif\0\0" + file.read(length)
            file.seek(length + 4, 1)
    return None


def _tiff_start(file: BinaryIO) -> bytes | None:
    """The beginning of a TIFF file, of either size of numbers; None of any other."""
    start = file.read(8)
    if start[:4] in {b"II*\0", b"MM\0*"}:
        return start
    return start + file.read(8) if start[:4] in {b"II+\0", b"MM\0+"} else None


def _tiff_header(file: BinaryIO) -> Header:
    file.seek(0)
    start = _tiff_start(file)
    assert start is not None
    tags: Any = ImageFileDirectory_v2(start)
    file.seek(tags.next)
    tags.load(file)
    width, height, orientation = (
        int(tags.get(tag, default)) for tag, default in ((256, 0), (257, 0), (_ORIENTATION, 1))
    )
    profile = tags.get(34675)
    per_unit = tags.get(_RESOLUTION), tags.get(_RESOLUTION + 1)
    unit = {2: 1.0, 3: 2.54}.get(tags.get(296, 2))
    return Header(
        kind="TIFF",
        size=(width, height) if orientation >= 5 else (height, width),
        bits=max(tags.get(258, (1,))) if tags.get(262) in {0, 1, 2} else 8,  # CMYK and the like through Pillow
        orientation=orientation,
        has_alpha=any(extra in (1, 2) for extra in tags.get(338, ())),
        profile=profile if isinstance(profile, bytes) else None,
        dpi=None if unit is None or None in per_unit else _dpi([float(each) * unit for each in per_unit]),
    )


def _dpi(values: Any) -> tuple[float, float] | None:
    """Pixels per inch, if they are sensible: some programs write 0."""
    if values is None or not all(0 < value < 1e6 for value in values):
        return None
    return float(values[0]), float(values[1])


def _scene(exif: Image.Exif) -> bytes | None:
    """What describes the scene, and holds for the deblurred image too."""
    kept = Image.Exif()
    kept.update({tag: value for tag, value in exif.items() if tag in _KEPT})
    for part in (_EXIF_PART, _GPS_PART):
        values: Mapping[int, Any] = exif.get_ifd(part)
        values = {tag: value for tag, value in values.items() if tag not in _DROPPED}
        if values:
            kept.get_ifd(part).update(values)
    return kept.tobytes() if len(kept.keys() | kept._ifds.keys()) else None
