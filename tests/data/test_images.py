from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from tifffile import imwrite

from reblurkit.data import read_image, write_image
from reblurkit.data.images import ImageKind, image_kind, image_size
from reblurkit.errors import ArgumentError, DatasetNotFoundError, ImageFileError, ShapeError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def png16(path, array):
    """A 16-bit colour PNG, written by hand: Pillow cannot."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    png = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png)


def expected(array, largest=255):
    return torch.from_numpy(array.astype(np.float32) / largest).permute(2, 0, 1)


def test_8_bit_rgb(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected(RGB), rtol=0, atol=0)


def test_16_bit_colour_png_and_tiff_keep_their_depth(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    png16(tmp_path / "a.png", array)
    imwrite(tmp_path / "a.tiff", array, photometric="rgb")
    for name in ("a.png", "a.tiff"):
        torch.testing.assert_close(read_image(tmp_path / name), expected(array, 65535), rtol=0, atol=0)


def test_16_bit_grey(tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    torch.testing.assert_close(image, expected(np.repeat(grey[..., None], 3, 2), 65535), rtol=0, atol=0)


def test_grey_gets_three_equal_channels(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected(np.repeat(RGB[..., :1], 3, 2)), rtol=0, atol=0)


def test_alpha_is_dropped(tmp_path):
    alpha = np.full((5, 7, 1), 9, dtype=np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], 2)).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected(RGB), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["CMYK", "P", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    source = Image.fromarray(RGB).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "1" else "a.jpg" if mode == "CMYK" else "a.png")
    source.save(path, **({"quality": 100} if mode == "CMYK" else {}))
    with Image.open(path) as image:
        reference = np.asarray(image.convert("RGB"))
    torch.testing.assert_close(read_image(path), expected(reference), rtol=0, atol=0)


def test_camera_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    torch.testing.assert_close(image, expected(np.rot90(RGB, -1).copy()), rtol=0, atol=0)
    assert image_size(tmp_path / "a.png") == (7, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_files_is_that_of_pillow(tmp_path, orientation):
    from PIL import ImageOps

    array = RGB.astype(np.uint16) * 257
    imwrite(tmp_path / "a.tiff", array, photometric="rgb", extratags=[(274, 3, 1, orientation)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        reference = np.asarray(ImageOps.exif_transpose(image))
    for name in ("a.png", "a.tiff"):
        torch.testing.assert_close(read_image(tmp_path / name), expected(reference), rtol=0, atol=0)
        assert image_size(tmp_path / name) == reference.shape[:2]


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "L"])
def test_tiff_files_are_read_as_what_they_mean(tmp_path, mode):
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.tiff", compression="tiff_lzw")
    with Image.open(tmp_path / "a.tiff") as image:
        reference = np.asarray(image.convert("RGB"))
    torch.testing.assert_close(read_image(tmp_path / "a.tiff"), expected(reference), rtol=0, atol=0)


def test_inverted_and_many_page_tiff_files(tmp_path):
    grey = Image.fromarray(RGB[..., 0])
    grey.save(tmp_path / "inverted.tiff", tiffinfo={262: 0})
    grey.save(tmp_path / "pages.tiff", save_all=True, append_images=[Image.fromarray(RGB[..., 1])])
    with Image.open(tmp_path / "inverted.tiff") as image:
        reference = np.asarray(image.convert("RGB"))
    torch.testing.assert_close(read_image(tmp_path / "inverted.tiff"), expected(reference), rtol=0, atol=0)
    first = expected(np.repeat(RGB[..., :1], 3, 2))
    torch.testing.assert_close(read_image(tmp_path / "pages.tiff"), first, rtol=0, atol=0)


def test_written_files_are_clamped_and_rounded(tmp_path):
    image = torch.tensor([-0.2, 0.5, 1.3]).view(3, 1, 1).expand(3, 2, 2)
    write_image(image, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as written:
        assert written.getpixel((0, 0)) == (0, 128, 255)
    with pytest.raises(ShapeError, match="one RGB image"):
        write_image(image[None], tmp_path / "b.png")
    with pytest.raises(ArgumentError, match="expected a suffix of"):
        write_image(image, tmp_path / "b")
    with pytest.raises(ArgumentError, match="holds NaN"):
        write_image(image * float("nan"), tmp_path / "b.png")


def test_bad_files_are_named(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "good.png")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.tiff").touch()
    (tmp_path / "floats.tiff").write_bytes(b"II*\0")
    for name in ("truncated.png", "empty.png", "text.png", "empty.tiff", "floats.tiff"):
        with pytest.raises(ImageFileError, match=f"cannot read image .*{name}: "):
            read_image(tmp_path / name)
    with pytest.raises(ImageFileError, match="the file is empty"):
        image_size(tmp_path / "empty.png")
    with pytest.raises(DatasetNotFoundError, match="no image file"):
        read_image(tmp_path / "missing.png")


def test_floating_point_files_are_refused(tmp_path):
    imwrite(tmp_path / "a.tiff", RGB[..., 0].astype(np.float32))
    with pytest.raises(ImageFileError, match="expected 8 or 16 bits per value, but it holds float32"):
        read_image(tmp_path / "a.tiff")


def test_writing_16_bits_and_a_profile(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, bits in (("deep.png", 16), ("shallow.png", 8)):
        write_image(expected(array, 65535), tmp_path / name, ImageKind(bits, profile))
        assert image_kind(tmp_path / name) == (bits, profile)
        tolerance = 0 if bits == 16 else 0.51 / 255
        torch.testing.assert_close(read_image(tmp_path / name), expected(array, 65535), rtol=0, atol=tolerance)
    write_image(expected(array, 65535), tmp_path / "plain.png", ImageKind(16))
    assert image_kind(tmp_path / "plain.png") == (16, None)
    with pytest.raises(ArgumentError, match=r"expected 8 bits, or 16 in a \.png file, but came 16"):
        write_image(expected(array, 65535), tmp_path / "a.jpg", ImageKind(16))


def test_the_kind_of_grey_palette_and_broken_files(tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    gamma = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(RGB[..., 0]).save(tmp_path / "profile.png", icc_profile=gamma)  # of no RGB values
    assert image_kind(tmp_path / "grey.png") == (16, None)
    assert image_kind(tmp_path / "profile.png") == (8, None)
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(ImageFileError, match="the file is empty"):
        image_kind(tmp_path / "broken.png")


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    write_image(expected(RGB), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ImageFileError, match=r"cannot write .*a\.png: No space left on device"):
        write_image(1 - expected(RGB), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_16_bit_tiff_files_of_other_programs(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    grey = torch.from_numpy(array[..., 0].astype(np.float32) / 65535).expand(3, 5, 7)
    imwrite(tmp_path / "planar.tif", array.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    imwrite(tmp_path / "big.tif", array[..., 0], byteorder=">", photometric="minisblack")
    imwrite(tmp_path / "white.tif", 65535 - array[..., 0], photometric="miniswhite")
    torch.testing.assert_close(read_image(tmp_path / "planar.tif"), expected(array, 65535), rtol=0, atol=0)
    torch.testing.assert_close(read_image(tmp_path / "big.tif"), grey, rtol=0, atol=0)
    torch.testing.assert_close(read_image(tmp_path / "white.tif"), grey, rtol=0, atol=0)
